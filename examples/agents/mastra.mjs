// A Mastra agent behind the gateway: its MCP client starts `mcp-authz connect`, which holds the agent's key and signs
// every call. The model is a script, so that it runs without a provider: put your own in its place.
//
//     node examples/agents/mastra.mjs URL --agent coder --key coder.pem [--connect PATH/TO/mcp-authz]
import { parseArgs } from "node:util";
import { Agent } from "@mastra/core/agent";
import { MastraLanguageModelV2Mock } from "@mastra/core/test-utils/llm-mock";
import { MCPClient } from "@mastra/mcp";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { agent: { type: "string" }, key: { type: "string" }, connect: { type: "string", default: "mcp-authz" } },
});
const [url] = positionals;

const mcp = new MCPClient({
  servers: {
    gateway: { command: values.connect, args: ["connect", url, "--agent", values.agent, "--key", values.key] },
  },
});

const repository = { owner: "acme", repo: "api" };
const script = [
  ["gateway_acme__list_pull_requests", repository],
  ["gateway_acme__deploy", { ...repository, environment: "staging", version: "1.4.0" }],
];
const usage = { inputTokens: 1, outputTokens: 1, totalTokens: 2 };
let turn = 0;

async function doGenerate() {
  const [toolName, input] = script[turn] ?? [];
  turn += 1;
  if (toolName === undefined) {
    return { content: [{ type: "text", text: "That is all." }], finishReason: "stop", usage, warnings: [] };
  }
  const call = { type: "tool-call", toolCallId: `call-${turn}`, toolName, input: JSON.stringify(input) };
  return { content: [call], finishReason: "tool-calls", usage, warnings: [] };
}

const agent = new Agent({
  id: values.agent,
  name: values.agent,
  instructions: "Ship it.",
  model: new MastraLanguageModelV2Mock({ doGenerate }),
  tools: await mcp.listTools(),
});

const { steps } = await agent.generate("Ship it.", { maxSteps: 4 });
for (const { type, toolName, output } of steps.flatMap((step) => step.content)) {
  // A call that is held, or denied, is an error that the model reads.
  if (type === "tool-result") console.log(`${toolName} ${output.type.split("-")[0]}: ${JSON.stringify(output.value)}`);
}
await mcp.disconnect();
