// An OpenID provider for tests: npm oidc-provider, which is certified, with a sign-in form of one field.
// It prints its issuer once it listens, and ends with its standard input. POST /test with JSON tells it who may sign in and
// for which client: {client, accounts: {NAME: claims}, settings}; {ahead} lets seconds pass on its clock.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

let ahead = 0; // milliseconds
const Real = Date;
globalThis.Date = class extends Real {
  constructor(...given) {
    given.length ? super(...given) : super(Real.now() + ahead);
  }
  static now() {
    return Real.now() + ahead;
  }
};

const require = createRequire(process.argv[2]);
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

let provider = null;
let accounts = {};

function make({ client, settings }) {
  provider = new Provider(issuer, {
    clients: [client],
    claims: {
      openid: ["sub", "amr"],
      profile: ["preferred_username", "name", "groups", "email", "email_verified"],
    },
    cookies: { keys: ["for tests only"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    pkce: { required: () => true },
    ttl: { Session: 86400, Interaction: 3600, Grant: 86400, AccessToken: 600, IdToken: 600, AuthorizationCode: 60 },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
    // Nobody is asked here whether the gateway may know who they are.
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile");
      await grant.save();
      return grant;
    },
    ...settings,
  });
}

const form = `<!doctype html><html lang="en"><title>Example Company</title><h1>Example Company</h1>
  <form method="post"><label>Name <input name="login"></label> <button>Sign in</button></form></html>`;

const server = createServer(async (req, res) => {
  const told = async () => text(req);
  if (req.url === "/test") {
    const job = JSON.parse(await told());
    if (job.accounts) accounts = job.accounts;
    if (job.ahead !== undefined) ahead = job.ahead * 1000;
    if (job.client) make(job);
    return res.end("{}");
  }
  if (!req.url.startsWith("/interaction/")) return provider.callback()(req, res);
  if (req.method === "GET") return res.writeHead(200, { "content-type": "text/html" }).end(form);
  const login = new URLSearchParams(await told()).get("login");
  const result = login
    ? { login: { accountId: login, amr: ["pwd", "otp"] } }
    : { error: "access_denied", error_description: "the person turned away" };
  return provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
});

process.on("warning", () => {});
process.stdin.on("end", () => process.exit(0)).resume();
server.listen(0, "127.0.0.1");
await new Promise((ready) => server.once("listening", ready));
const issuer = `http://localhost:${server.address().port}`;
process.stdout.write(`${issuer}\n`);
