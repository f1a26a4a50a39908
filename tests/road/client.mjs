// A stock client of the TypeScript SDK: logs in with the agent's Ed25519 key, lists, calls what it is told to, and
// answers what it is asked. Reads one JSON object from standard input, writes one to standard output.
import { readFileSync } from "node:fs";
import { Client, PrivateKeyJwtProvider, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { url, issuer, agent, key, mode, calls, answer } = JSON.parse(readFileSync(0, "utf8"));
const asked = [];
const capabilities = answer ? { elicitation: { form: {} } } : {};
const client = new Client({ name: "stock", version: "1" }, { capabilities, versionNegotiation: { mode } });
if (answer) {
  client.setRequestHandler("elicitation/create", async ({ params }) => {
    asked.push(params.message);
    return answer;
  });
}
const authProvider = new PrivateKeyJwtProvider({
  clientId: agent,
  privateKey: new TextEncoder().encode(key), // as bytes: a PEM string is refused for EdDSA
  algorithm: "EdDSA",
  expectedIssuer: issuer,
});
await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
const { tools } = await client.listTools();
const results = [];
for (const call of calls) {
  try {
    results.push(await client.callTool(call));
  } catch (error) {
    results.push({ thrown: String(error.message), code: error.code });
  }
}
const version = client.getNegotiatedProtocolVersion?.() ?? null;
process.stdout.write(JSON.stringify({ tools: tools.map((tool) => tool.name), results, asked, version }));
await client.close();
