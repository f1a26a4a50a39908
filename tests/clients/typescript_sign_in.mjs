// A client made of nothing but the TypeScript SDK v2, that a person signs in to: it says where to go, listens on
// loopback for the answer, and goes on. The job is JSON on the first line of standard input:
// {packages, url, mode, client: null | {client_id}, name, dpop, steps: [["list"], ["call", name, arguments]]}
// Standard output has one JSON line for each address that a person has to open, {open}, and at the end {said, sent}.
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { once } from "node:events";
import { createInterface } from "node:readline";

const [line] = await once(createInterface({ input: process.stdin }), "line");
const job = JSON.parse(line);
const require = createRequire(job.packages);
const { Client, DpopSession, StreamableHTTPClientTransport, UnauthorizedError } = require("@modelcontextprotocol/client");

const answers = [];
let arrived;
const receiver = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://127.0.0.1");
  response.end("You can go back to the program.");
  if (pathname !== "/callback") return; // browsers ask for an icon, too
  answers.push(searchParams);
  arrived?.();
});
receiver.listen(0, "127.0.0.1");
await once(receiver, "listening");
const redirect = `http://127.0.0.1:${receiver.address().port}/callback`;
const session = job.dpop && (await DpopSession.create({ alg: job.dpop }));

const kept = { client: job.client ?? undefined };
const provider = {
  redirectUrl: redirect,
  clientMetadata: {
    client_name: job.name,
    redirect_uris: [redirect],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => crypto.randomUUID(),
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  redirectToAuthorization: (url) => console.log(JSON.stringify({ open: url.href })),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => void (kept.discovered = state),
  discoveryState: () => kept.discovered,
  dpop: () => session || undefined,
};

const sent = [];
async function watched(url, init) {
  const response = await fetch(url, init);
  const scheme = new Headers(init?.headers).get("authorization")?.split(" ")[0] ?? null;
  sent.push([init?.method ?? "GET", new URL(url).pathname, scheme, response.status]);
  return response;
}

let client, transport;
async function connect() {
  client = new Client({ name: "typescript-sign-in", version: "1" }, { versionNegotiation: { mode: job.mode } });
  transport = new StreamableHTTPClientTransport(new URL(job.url), { authProvider: provider, fetch: watched });
  await client.connect(transport);
}

async function step([what, ...words]) {
  if (what === "list") return (await client.listTools()).tools.map((tool) => tool.name);
  return await client.callTool({ name: words[0], arguments: words[1] });
}

// Whatever needs a person first is done once more when they have answered.
async function signedIn(what) {
  for (let round = 0; ; round += 1) {
    try {
      return await what();
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || round === 2) throw error;
      if (!answers.length) await new Promise((resolve) => (arrived = resolve));
      await transport.finishAuth(answers.shift());
    }
  }
}

const said = [];
try {
  await signedIn(connect);
  for (const one of job.steps) said.push(await signedIn(() => step(one)));
  await client.close();
} catch (error) {
  said.push({ thrown: error.constructor.name, code: error.code, message: error.message });
}
receiver.close();
console.log(JSON.stringify({ said, sent, scope: kept.tokens?.scope, refreshes: Boolean(kept.tokens?.refresh_token) }));
process.exit(0);
