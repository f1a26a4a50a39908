// The page's script: passkey ceremonies, verdicts, times in the reader's zone, and what changes while it is open.

import { alike, place } from "./alike.js";

const bytes = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const said = document.getElementById("said");
const say = (sentence) => {
  said.textContent = "";
  requestAnimationFrame(() => (said.textContent = sentence));
};

function complain(sentence) {
  const trouble = document.getElementById("trouble");
  trouble.textContent = sentence;
  trouble.hidden = !sentence;
  if (sentence) trouble.scrollIntoView({ block: "nearest" });
}

export class Refused extends Error {}

export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused("The gateway cannot be reached. Is it running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (answer.again) location.reload(); // and the page is one to sign in on
  if (!response.ok) throw new Refused(answer.error ?? `The gateway answered ${response.status}.`);
  return answer;
}

// Passkeys.

function requirePasskeys() {
  if (!window.PublicKeyCredential) throw new Refused("This browser knows no passkeys. Use a newer one.");
}

const named = (list) => list?.map((one) => ({ ...one, id: bytes(one.id) }));

async function show(options) {
  requirePasskeys();
  const found = await navigator.credentials.get({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      allowCredentials: named(options.allowCredentials),
    },
  });
  const { clientDataJSON, authenticatorData, signature, userHandle } = found.response;
  return {
    id: found.id,
    rawId: text(found.rawId),
    type: found.type,
    response: {
      clientDataJSON: text(clientDataJSON),
      authenticatorData: text(authenticatorData),
      signature: text(signature),
      ...(userHandle ? { userHandle: text(userHandle) } : {}),
    },
  };
}

async function make(options) {
  requirePasskeys();
  const made = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: named(options.excludeCredentials),
    },
  });
  const { clientDataJSON, attestationObject } = made.response;
  return {
    id: made.id,
    rawId: text(made.rawId),
    type: made.type,
    response: { clientDataJSON: text(clientDataJSON), attestationObject: text(attestationObject) },
  };
}

const passkeyTrouble = {
  NotAllowedError: "No passkey was shown. Try again when you are ready.",
  InvalidStateError: "This device has a passkey for you already. Sign in with it.",
  SecurityError: "Passkeys belong to names, not to addresses: give the gateway a public_url such as http://localhost:8642.",
};

async function attempt(button, work) {
  complain("");
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    complain(error instanceof Refused ? error.message : (passkeyTrouble[error.name] ?? `That did not work: ${error.message}`));
  } finally {
    button.disabled = false;
  }
}

const here = location.pathname;

const onClick = {
  showPasskey: (button) =>
    attempt(button, async () => {
      const { nonce, options } = await post("/sign-in/question", {});
      await post("/sign-in", { nonce, answer: await show(options) });
      location.reload();
    }),

  provider: (button) =>
    attempt(button, async () => {
      const fresh = Boolean(document.querySelector("[data-again]")) || "fresh" in button.dataset;
      const { next } = await post("/sign-in/provider", { next: location.pathname + location.search, fresh });
      location.assign(next);
    }),

  makePasskey: (button) =>
    attempt(button, async () => {
      const { nonce, options } = await post(`${here}/question`, {});
      const { next } = await post(`${here}/passkey`, { nonce, answer: await make(options) });
      location.assign(next);
    }),

  addPasskey: (button) =>
    attempt(button, async () => {
      const proof = await post("/passkeys/proof", {});
      const shown = { nonce: proof.nonce, answer: await show(proof.options) };
      const { nonce, options } = await post("/passkeys/question", shown);
      const { next } = await post("/passkeys", { nonce, answer: await make(options) });
      location.assign(next);
    }),

  post: (button) =>
    attempt(button, async () => {
      const reason = button.form?.reason;
      if (reason && !reason.value.trim()) {
        reason.focus();
        throw new Refused("Say why: write a reason, which stays on record.");
      }
      const { next } = await post(button.dataset.post, reason ? { reason: reason.value } : {});
      location.assign(next);
    }),

  approve: (button) =>
    attempt(button, async () => {
      const form = button.form;
      const asked = { reason: form.reason.value, ...terms(form), ...(await alike(form)) };
      if (missesReason(form)) return;
      const { nonce, options } = await post(`${place(form)}/question`, asked);
      await answered(await post(`${place(form)}/approve`, { nonce, answer: await show(options) }));
    }),

  approveSignedIn: (button) =>
    attempt(button, async () => {
      const form = button.form;
      if (missesReason(form)) return;
      const half = localStorage.getItem("half") ?? "";
      const body = { reason: form.reason.value, half, ...terms(form), ...(await alike(form)) };
      await answered(await post(`${place(form)}/approve-signed-in`, body));
    }),

  deny: (button) =>
    attempt(button, async () => {
      const form = button.form;
      await answered(await post(`${form.dataset.hold}/deny`, { reason: form.reason.value }));
    }),

  sendBack: (button) =>
    attempt(button, async () => {
      const form = button.form;
      if (!form.reason.value.trim()) {
        form.reason.focus();
        throw new Refused("Say what the call should be instead: write a reason.");
      }
      await answered(await post(`${form.dataset.hold}/send-back`, { reason: form.reason.value }));
    }),

  agree: (button) =>
    attempt(button, async () => {
      if (!("passkey" in button.dataset)) requireALook();
      const form = button.form;
      const scopes = [...form.querySelectorAll("[name=scopes]:checked")].map((box) => box.value);
      const asked = { query: asks(), scopes, days: Number(form.days.value) };
      const { nonce, options } = await post("/authorize/question", asked);
      const proof = options ? { answer: await show(options) } : { half: localStorage.getItem("half") ?? "" };
      leave(await post("/authorize/agree", { nonce, ...proof }));
    }),

  refuse: (button) =>
    attempt(button, async () => {
      leave(await post("/authorize/refuse", { query: asks() }));
    }),

  otherPerson: (button) =>
    attempt(button, async () => {
      await post("/sign-out", {});
      location.reload();
    }),

  leave: (button) => attempt(button, async () => leave({ next: button.dataset.leave })),
};

// Where no passkey asks once more, the second of two clicks that began on another page must not agree to anything.

let inFront = performance.now();
addEventListener("focus", () => (inFront = performance.now()));
document.addEventListener("visibilitychange", () => (inFront = performance.now()));

function requireALook() {
  if (performance.now() - inFront < 700) throw new Refused("This page came to the front just now. Read it, then agree.");
}

// The way back to a client: to https, to this computer, or to an application; never to what a browser runs by itself.

const asks = () => location.search.slice(1);
const never = new Set(
  "about blob data file filesystem ftp intent jar javascript mailto ms-appx resource sms tel urn vbscript view-source ws wss"
    .split(" ")
    .map((scheme) => `${scheme}:`),
);

function mayOpen({ protocol, hostname }) {
  if (protocol === "http:") return ["127.0.0.1", "[::1]", "localhost"].includes(hostname);
  return protocol === "https:" || !never.has(protocol);
}

function leave({ next }) {
  const place = new URL(next);
  if (!mayOpen(place)) throw new Refused("The answer would go where no page may lead.");
  const gone = document.querySelector("[data-gone]");
  if (gone && place.protocol !== "https:") {
    document.querySelector("[data-asked]").hidden = true;
    gone.hidden = false;
    gone.focus();
    gone.querySelector("[data-once-more]")?.addEventListener("click", () => location.replace(next));
  }
  location.replace(next); // so that what carries the code takes this page's place in the history
}

function missesReason(form) {
  if (!("needsReason" in form.dataset) || form.reason.value.trim()) return false;
  form.reason.focus();
  throw new Refused("A rule of this call wants to know why: write a reason.");
}

function terms(form) {
  if (!form.querySelector("[data-narrowing]")) return {};
  const tools = [...form.querySelectorAll("[name=tools]:checked")].map((box) => box.value);
  if (!tools.length) throw new Refused("Choose at least one tool, or deny.");
  if (!form.minutes.checkValidity()) {
    form.minutes.focus();
    throw new Refused(`Choose from 1 to ${form.minutes.max} minutes.`);
  }
  return {
    terms: {
      minutes: form.minutes.valueAsNumber,
      tools,
    },
  };
}

async function answered() {
  await refresh();
  const heading = document.querySelector("[data-live=state]") ?? document.getElementById("main");
  heading.tabIndex = -1;
  heading.focus();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const what = Object.keys(onClick).find((name) => name in button.dataset);
  if (what) onClick[what](button);
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[method=get]")) event.preventDefault();
});

// Times: the reader's own zone, and what is left by the gateway's clock.

const ahead = Date.parse(document.body.dataset.now) - Date.now();

function localise(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date(Date.now() + ahead).toDateString();
    time.textContent = at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
    time.textContent = `${today ? "today at" : "on"} ${time.textContent}`;
    time.title = at.toString();
  }
}

function left(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

function count() {
  for (const span of document.querySelectorAll("[data-ends]")) {
    const seconds = Math.ceil((Date.parse(span.dataset.ends) - Date.now() - ahead) / 1000);
    if (seconds > 0) span.textContent = left(seconds);
    else if (!(Date.now() - span.dataset.asked < 2000)) {
      span.dataset.asked = Date.now(); // and again, should the two clocks not agree yet
      span.textContent = "0:00";
      refresh();
    }
  }
}

// What changes while the page is open: it is fetched whole, and the parts that differ are put in place. A form stays with
// what was typed in it, for its part is the same as long as there is a form.

let looking = null; // one look at a time: of two at once the older could come last, and stay
let again = false;

async function refresh() {
  again = true;
  looking ??= lookUntilCurrent().finally(() => (looking = null));
  return looking;
}

async function lookUntilCurrent() {
  while (again) {
    again = false;
    await look();
  }
}

async function look() {
  let response;
  try {
    response = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    return;
  }
  if (response.status === 401) return over();
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = fresh.title;
  for (const old of document.querySelectorAll("[data-live]")) {
    const part = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
    if (part) swap(old, part);
  }
  count();
}

const shapes = new WeakMap();

function swap(old, part) {
  const html = part.innerHTML;
  if (!shapes.has(old)) shapes.set(old, original.get(old.dataset.live));
  if (shapes.get(old) === html) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  shapes.set(old, html);
  old.replaceChildren(...part.childNodes);
  old.classList.remove("fresh");
  void old.offsetWidth;
  old.classList.add("fresh");
  localise(old);
  if (focused) [...old.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
  if (part.dataset.said) say(part.dataset.said);
}

function over() {
  complain("You are signed out.");
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "Sign in again";
  document.getElementById("trouble").append(" ", again);
}

const original = new Map(
  [...document.querySelectorAll("[data-live]")].map((part) => [part.dataset.live, part.innerHTML]),
);

localise(document);
count();
setInterval(count, 1000);

const arrived = document.querySelector("[data-arrived]");
if (arrived) {
  // Cookies of localhost go to all its ports; what is kept here is for pages of this very origin.
  localStorage.setItem("half", arrived.dataset.half);
  location.replace(arrived.dataset.next);
}

if (document.querySelector("[data-sign-in]:not([data-again])")) {
  // A link of another site opens the page without its cookie: look once more from here.
  fetch("/sign-in").then((response) => response.status === 204 && location.reload());
}

const silent = document.querySelector("[data-silent]");
if (silent) {
  // A client asks for an answer without a page, from another site, where the cookie stayed behind.
  fetch("/sign-in").then((response) =>
    response.status === 204 ? location.reload() : leave({ next: silent.dataset.silent }),
  );
}

if (original.size) {
  const stream = new EventSource(`/events${document.querySelector("[data-watch]")?.dataset.watch ?? ""}`);
  stream.addEventListener("open", refresh);
  stream.addEventListener("changed", refresh);
  stream.addEventListener("signed-out", () => {
    stream.close();
    over();
  });
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED) refresh().then(() => say("This tab is not live; reload it to see news."));
  });
}
