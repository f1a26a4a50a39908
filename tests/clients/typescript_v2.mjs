// A client made of nothing but the TypeScript SDK v2. The job is JSON on standard input:
// {packages, url, mode, token | {agent, pem, issuer, scope, dpop}, answer, opens, steps: [["list"], ["call", name, arguments]]}
// and what came of each step is JSON on standard output, with everything that the person was asked, and every request
// with its status. `dpop` is the algorithm of the key that proves possession of the tokens.
// Steps are also ["prompts"], ["prompt", name, arguments] and ["complete", prompt, argument, value].
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const job = JSON.parse(await text(process.stdin));
const require = createRequire(job.packages);
const { Client, DpopSession, PrivateKeyJwtProvider, StreamableHTTPClientTransport } = require(
  "@modelcontextprotocol/client",
);

const proving = job.dpop && (await DpopSession.create({ alg: job.dpop }));

class Provider extends PrivateKeyJwtProvider {
  dpop() {
    return proving; // undefined: bearer tokens
  }
}

const sent = [];
async function watched(url, init) {
  const response = await fetch(url, init);
  const headers = new Headers(init?.headers);
  const scheme = headers.get("authorization")?.split(" ")[0] ?? null;
  sent.push([init?.method ?? "GET", new URL(url).pathname, scheme, response.status]);
  return response;
}

function access() {
  if (job.token) return { requestInit: { headers: { Authorization: `Bearer ${job.token}` } } };
  const authProvider = new Provider({
    clientId: job.agent,
    privateKey: new TextEncoder().encode(job.pem), // as text it would be taken for RSA or ECDSA only
    algorithm: "EdDSA",
    expectedIssuer: job.issuer,
    scope: job.scope,
  });
  return { authProvider, onInsufficientScope: job.onInsufficientScope };
}

const options = { versionNegotiation: { mode: job.mode }, capabilities: job.answer ? { elicitation: job.opens ? { url: {} } : { form: {} } } : {} };
const client = new Client({ name: "typescript-v2", version: "1" }, options);
const asked = [];
if (job.answer) {
  client.setRequestHandler("elicitation/create", async ({ params }) => {
    asked.push(params.url ?? params.message);
    return job.answer;
  });
}

async function step([what, ...words]) {
  try {
    switch (what) {
      case "forget": // the nonce of this server
        proving.nonces.clear();
        return;
      case "list":
        return (await client.listTools()).tools.map((tool) => tool.name);
      case "call":
        return await client.callTool({ name: words[0], arguments: words[1] });
      case "prompts":
        return (await client.listPrompts()).prompts.map((prompt) => prompt.name);
      case "prompt":
        return await client.getPrompt({ name: words[0], arguments: words[1] });
      case "complete": {
        const [name, argument, value] = words;
        const ref = { type: "ref/prompt", name };
        return (await client.complete({ ref, argument: { name: argument, value } })).completion.values;
      }
    }
  } catch (error) {
    return { thrown: error.constructor.name, code: error.code, message: error.message };
  }
}

const said = [];
let version;
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(job.url), { ...access(), fetch: watched }));
  version = client.getNegotiatedProtocolVersion();
  for (const one of job.steps) said.push(await step(one));
  await client.close();
} catch (error) {
  said.push({ thrown: error.constructor.name, code: error.code, message: error.message });
}
console.log(JSON.stringify({ said, asked, version, sent, key: proving?.thumbprint }));
