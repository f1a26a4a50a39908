// The tasks extension's own client library over the TypeScript SDK v2. The job is JSON on standard input:
// {packages, url, token, tool, arguments, answer}, and what the call came to is JSON on standard output, with every
// state that the task was in and what the person was asked. Requests about tasks are sent by hand, as the library wants
// it: the SDK's own codecs do not know them.
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const job = JSON.parse(await text(process.stdin));
const require = createRequire(job.packages);
const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
const library = `${job.packages}@modelcontextprotocol/ext-tasks/dist/client/index.js`;
const { createTaskSessionFromClient } = await import(pathToFileURL(library).href);

const VERSION = "2026-07-28";
const clientInfo = { name: "typescript-tasks", version: "1" };
const clientCapabilities = {
  extensions: { "io.modelcontextprotocol/tasks": {} },
  ...(job.answer ? { elicitation: { form: {} } } : {}),
};
const authorization = `Bearer ${job.token}`;
let number = 0;

async function rawDispatch(request, { signal } = {}) {
  const { method, params } = request;
  const headers = {
    authorization,
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "mcp-protocol-version": VERSION,
    "mcp-method": method,
    ...(params.taskId ?? params.name ? { "mcp-name": params.taskId ?? params.name } : {}),
  };
  const body = JSON.stringify({ jsonrpc: "2.0", id: ++number, method, params });
  const response = await fetch(job.url, { method: "POST", headers, body, signal });
  const said = await response.text();
  const last = said.startsWith("{") ? said : said.split("\r\n").filter((line) => line.startsWith("data: ")).at(-1).slice(6);
  const { result, error } = JSON.parse(last);
  return error === undefined ? { kind: "result", result } : { kind: "error", error };
}

const asked = [];
const states = [];
const client = new Client(clientInfo, { versionNegotiation: { mode: { pin: VERSION } }, capabilities: clientCapabilities });
await client.connect(new StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers: { authorization } } }));
const session = createTaskSessionFromClient(client, {
  endpointId: "gateway",
  rawDispatch,
  v2RequestFraming: { protocolVersion: VERSION, clientInfo, clientCapabilities },
  onInputRequest: async ({ params }) => {
    asked.push(params.message);
    return job.answer;
  },
});
const execution = await session.callTool(job.tool, job.arguments);
const { outcome } = await execution.settle({
  onEvent: (event) => {
    if (event.type === "task") states.push(event.task.status);
  },
});
const { status, result, error } = outcome;
console.log(JSON.stringify({ kind: execution.kind, status, result, error: error?.message, states, asked }));
await session.close();
await client.close();
