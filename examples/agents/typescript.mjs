// An agent in TypeScript with nothing but the SDK: it signs in with its Ed25519 key, and its token is bound to that key
// by DPoP (RFC 9449), so that whoever steals the token cannot use it.
//
//     node examples/agents/typescript.mjs URL --agent coder --key coder.pem
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Client, DpopSession, PrivateKeyJwtProvider, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { agent: { type: "string" }, key: { type: "string" } },
});
const [url] = positionals;

/** The SDK's own provider, with a key that every request proves. */
class Proved extends PrivateKeyJwtProvider {
  #session = DpopSession.create();

  dpop() {
    return this.#session;
  }
}

const pem = createPrivateKey(readFileSync(values.key)).export({ type: "pkcs8", format: "pem" });
const authProvider = new Proved({
  clientId: values.agent,
  privateKey: new TextEncoder().encode(pem),
  algorithm: "EdDSA",
  expectedIssuer: new URL(url).origin,
});

const client = new Client({ name: "typescript-agent", version: "1" }, { versionNegotiation: { mode: "auto" } });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));

const repository = { owner: "acme", repo: "api" };
const steps = [
  ["acme__list_pull_requests", repository],
  ["acme__deploy", { ...repository, environment: "staging", version: "1.4.0" }],
];
for (const [name, args] of steps) {
  const { content, isError } = await client.callTool({ name, arguments: args });
  console.log(`${name} ${isError ? "error" : "success"}: ${content[0].text}`);
}
console.log(`token_type: ${authProvider.tokens().token_type}`);
await client.close();
