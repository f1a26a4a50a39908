// What a person approves beside the call before them: read from the form, and said in a sentence before the passkey.

import { Refused, post } from "./page.js";

const fold = (form) => form.querySelector("[data-alike][open]");

// Where the approval of a form goes: another place when calls like it are approved too.
export const place = (form) => (fold(form) ? `${form.dataset.hold}/alike` : form.dataset.hold);

function number(input) {
  if (input.checkValidity()) return input.valueAsNumber;
  input.focus();
  throw new Refused(`Choose from 1 to ${input.max}.`);
}

function value(line, row) {
  if ("text" in row.dataset) return line;
  try {
    return JSON.parse(line);
  } catch {
    throw new Refused(`Write each value of ${row.querySelector("legend").textContent} as JSON, one on each line.`);
  }
}

function choice(row) {
  switch (row.querySelector("select").value) {
    case "any":
      return { constraint_type: "wildcard" };
    case "list": {
      const lines = row.querySelector("[data-list]").value.split("\n").filter((line) => line.trim());
      return { constraint_type: "one_of", values: lines.map((line) => value(line, row)) };
    }
    case "below":
      return { constraint_type: "under", root: row.querySelector("[data-below]").value };
    default:
      return null;
  }
}

function chosen(form) {
  const rows = [...form.querySelectorAll("[data-argument]")].map((row) => [JSON.parse(row.dataset.argument), choice(row)]);
  return {
    reason: form.reason.value,
    calls: number(form.alike_calls),
    minutes: number(form.alike_minutes),
    freed: Object.fromEntries(rows.filter(([, constraint]) => constraint)),
  };
}

const read = new WeakMap(); // form -> what its sentence was made of, and says

async function say(form) {
  const asked = chosen(form);
  const told = await post(`${form.dataset.hold}/alike/says`, asked);
  read.set(form, { asked: JSON.stringify(asked), ...told });
  form.querySelector("[data-says]").textContent = told.says;
  return asked;
}

// What goes with the approval. The sentence must have been there to be read: a new one is shown first, and nothing signed.
export async function alike(form) {
  if (!fold(form)) return {};
  const asked = chosen(form);
  const before = read.get(form);
  if (before?.asked !== JSON.stringify(asked)) {
    await say(form);
    throw new Refused("Read what you also approve, then approve.");
  }
  return { ...asked, says: before.says, until: before.until };
}

let waiting;

function renew(form) {
  const button = form.querySelector("[data-approve], [data-approve-signed-in]");
  const open = fold(form);
  button.dataset.plain ??= button.textContent;
  const calls = form.alike_calls.valueAsNumber || 0;
  button.textContent = open ? `Approve this and the next ${calls}` : button.dataset.plain;
  if (!open) return;
  for (const row of form.querySelectorAll("[data-argument]")) {
    const chosen = row.querySelector("select").value;
    row.querySelector("[data-list]").hidden = chosen !== "list";
    const below = row.querySelector("[data-below]");
    if (below) below.hidden = chosen !== "below";
  }
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    try {
      await say(form);
    } catch (error) {
      read.delete(form);
      form.querySelector("[data-says]").textContent = error.message;
    }
  }, 250);
}

const inside = (event) => event.target.closest?.("[data-alike]")?.closest("form");
document.addEventListener("toggle", (event) => inside(event) && renew(inside(event)), true);
document.addEventListener("input", (event) => inside(event) && renew(inside(event)));
