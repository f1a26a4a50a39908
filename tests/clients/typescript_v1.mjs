// A client made of nothing but the TypeScript SDK v1, which speaks 2025-11-25; job and answer as in typescript_v2.mjs.
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const job = JSON.parse(await text(process.stdin));
const require = createRequire(job.packages);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { PrivateKeyJwtProvider } = require("@modelcontextprotocol/sdk/client/auth-extensions.js");
const { ElicitRequestSchema } = require("@modelcontextprotocol/sdk/types.js");

function access() {
  if (job.token) return { requestInit: { headers: { Authorization: `Bearer ${job.token}` } } };
  const authProvider = new PrivateKeyJwtProvider({
    clientId: job.agent,
    privateKey: new TextEncoder().encode(job.pem), // as text it would be taken for RSA or ECDSA only
    algorithm: "EdDSA",
    expectedIssuer: job.issuer,
    scope: job.scope,
  });
  return { authProvider };
}

const capabilities = job.answer ? { elicitation: job.opens ? { url: {} } : { form: {} } } : {};
const client = new Client({ name: "typescript-v1", version: "1" }, { capabilities });
const transport = new StreamableHTTPClientTransport(new URL(job.url), access());
const asked = [];
if (job.answer) {
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    asked.push(params.url ?? params.message);
    return job.answer;
  });
}

async function step([what, ...words]) {
  try {
    switch (what) {
      case "list":
        return (await client.listTools()).tools.map((tool) => tool.name);
      case "call":
        return await client.callTool({ name: words[0], arguments: words[1] });
    }
  } catch (error) {
    return { thrown: error.constructor.name, code: error.code, message: error.message };
  }
}

const said = [];
let version;
try {
  await client.connect(transport);
  version = transport.protocolVersion;
  for (const one of job.steps) said.push(await step(one));
  await transport.terminateSession();
  await client.close();
} catch (error) {
  said.push({ thrown: error.constructor.name, code: error.code, message: error.message });
}
console.log(JSON.stringify({ said, asked, version }));
