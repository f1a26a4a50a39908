// A client made of nothing but the TypeScript SDK v2. The job is JSON on standard input:
// {packages, url, mode, token | {agent, pem, issuer, scope}, answer, steps: [["list"], ["call", name, arguments]]}
// and what came of each step is JSON on standard output, with everything that the person was asked.
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const job = JSON.parse(await text(process.stdin));
const require = createRequire(job.packages);
const { Client, PrivateKeyJwtProvider, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");

function access() {
  if (job.token) return { requestInit: { headers: { Authorization: `Bearer ${job.token}` } } };
  const authProvider = new PrivateKeyJwtProvider({
    clientId: job.agent,
    privateKey: new TextEncoder().encode(job.pem), // as text it would be taken for RSA or ECDSA only
    algorithm: "EdDSA",
    expectedIssuer: job.issuer,
    scope: job.scope,
  });
  return { authProvider, onInsufficientScope: job.onInsufficientScope };
}

const options = { versionNegotiation: { mode: job.mode }, capabilities: job.answer ? { elicitation: { form: {} } } : {} };
const client = new Client({ name: "typescript-v2", version: "1" }, options);
const asked = [];
if (job.answer) {
  client.setRequestHandler("elicitation/create", async ({ params }) => {
    asked.push(params.message);
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
  await client.connect(new StreamableHTTPClientTransport(new URL(job.url), access()));
  version = client.getNegotiatedProtocolVersion();
  for (const one of job.steps) said.push(await step(one));
  await client.close();
} catch (error) {
  said.push({ thrown: error.constructor.name, code: error.code, message: error.message });
}
console.log(JSON.stringify({ said, asked, version }));
