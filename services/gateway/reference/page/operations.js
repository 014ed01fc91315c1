// One operation over HTTP: what it takes, what it answers, and a way to try it.

import { copyButton, element, json, phrase, prose } from "./elements.js";

export function operationCard(operation, schemas, token) {
  const { method, path, told } = operation;
  const card = element("details", { class: "card", id: told.operationId });
  card.append(
    element(
      "summary",
      {},
      element("span", { class: `method ${method}` }, method),
      element("span", { class: "path" }, path),
      element("span", { class: "summary" }, phrase(told.summary)),
    ),
  );
  card.addEventListener("toggle", () => {
    if (card.open && card.children.length === 1) card.append(body(operation, schemas, token));
  });
  return card;
}

function body(operation, schemas, token) {
  const { told } = operation;
  const parts = [...prose(told.description)];
  if (told.security?.length === 0) parts.push(element("p", { class: "muted" }, "Needs no token."));
  const parameters = told.parameters ?? [];
  if (parameters.length) {
    parts.push(element("h4", {}, "Parameters"));
    const rows = parameters.map((one) =>
      schemas.row(one.name, { ...one.schema, description: [one.description, one.in === "query" ? "" : `In the ${one.in}.`].filter(Boolean).join(" ") },
        one.required ? [one.name] : [], 0));
    parts.push(element("div", { class: "fields" }, rows));
  }
  for (const [type, media] of Object.entries(told.requestBody?.content ?? {})) {
    parts.push(element("h4", {}, "Body ", element("span", { class: "muted" }, type)));
    parts.push(schemas.view(media.schema) ?? element("p", {}, schemas.type(media.schema)));
  }
  parts.push(element("h4", {}, "Answers"), answers(operation, schemas));
  parts.push(element("h4", {}, "Try it"), trial(operation, schemas, token));
  return element("div", { class: "body" }, parts);
}

function answers({ told, resolveResponse }, schemas) {
  const good = [];
  const bad = [];
  for (const [status, response] of Object.entries(told.responses)) {
    const own = resolveResponse(response);
    (status < "400" ? good : bad).push(answer(status, own, schemas));
  }
  const errors = element("details", { class: "errors" },
    element("summary", {}, "Errors: ", bad.map((one) => one.dataset.status).join(", ")), bad);
  return element("div", {}, good, bad.length ? errors : null);
}

function answer(status, response, schemas) {
  const media = Object.entries(response.content ?? {});
  const heads = media.map(([type, one]) => {
    const name = schemas.type(one.schema ?? {});
    return element("span", { class: "muted" }, ` ${type === "application/json" ? "" : `${type} `}${name === "object" ? "events" : name}`);
  });
  const details = element("details", { class: "answer", "data-status": status },
    element("summary", {}, element("span", { class: `status s${status[0]}` }, status), " ", phrase(response.description), heads));
  schemas.onOpen(details, () => {
    const inside = media.map(([, one]) => schemas.view(one.schema ?? {}));
    for (const [, one] of media) {
      for (const example of Object.values(one.examples ?? {})) inside.push(element("pre", {}, json(example.value)));
    }
    return element("div", {}, inside.filter(Boolean));
  });
  return details;
}

// -- trying --------------------------------------------------------------------------

function trial(operation, schemas, token) {
  const { method, path, told } = operation;
  const inputs = (told.parameters ?? []).map((one) => ({ one, input: parameterInput(one) }));
  const media = Object.entries(told.requestBody?.content ?? {})[0];
  const form = media?.[0] === "multipart/form-data" ? formInputs(schemas.resolve(media[1].schema)) : null;
  const text = media && !form ? element("textarea", { rows: 4, spellcheck: "false", "aria-label": "Body" }) : null;
  if (text) {
    text.value = json(schemas.example(media[1].schema));
    text.rows = Math.min(14, text.value.split("\n").length + 1);
  }

  const asked = () => {
    let url = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { one, input } of inputs) {
      const value = input.value.trim();
      if (one.in === "path") url = url.replace(`{${one.name}}`, encodeURIComponent(value || `{${one.name}}`));
      else if (value && one.in === "query") query.set(one.name, value);
      else if (value && one.in === "header") headers[one.name] = value;
    }
    if (token()) headers.Authorization = `Bearer ${token()}`;
    if (text) headers["Content-Type"] = media[0];
    return { url: query.size ? `${url}?${query}` : url, headers };
  };

  const line = element("pre", { class: "curl" });
  const draw = () => (line.textContent = curl(method, asked(), text?.value, form));
  const output = element("div", { class: "output", "aria-live": "polite" });
  const box = element("form", { class: "trial" },
    inputs.map(({ one, input }) => element("label", {}, element("span", {}, one.name, one.required ? "∗" : ""), input)),
    form?.map(({ name, input }) => element("label", {}, element("span", {}, name), input)),
    text,
    element("div", { class: "line" }, line, copyButton(() => line.textContent)),
    element("div", { class: "buttons" }, element("button", { type: "submit" }, "Send"),
      element("button", { type: "button", class: "quiet", onclick: () => controller?.abort() }, "Stop")),
    output);
  let controller;
  box.addEventListener("input", draw);
  window.addEventListener("token", draw);
  box.addEventListener("submit", async (event) => {
    event.preventDefault();
    controller?.abort();
    controller = new AbortController();
    await send(method, asked(), text?.value ?? formData(form), output, controller.signal);
  });
  draw();
  return box;
}

function parameterInput(one) {
  const choices = one.schema.enum ?? (one.schema.type === "boolean" ? ["true", "false"] : null);
  if (choices) return element("select", {}, element("option", { value: "" }, "–"), choices.filter(Boolean).map((value) => element("option", {}, value)));
  return element("input", { type: "text", placeholder: one.schema.default ?? one.schema.format ?? "", spellcheck: "false", autocomplete: "off" });
}

function formInputs(schema) {
  return Object.entries(schema.properties).map(([name, field]) => ({
    name,
    input: element("input", { type: field.format === "binary" ? "file" : "text", placeholder: field.default ?? "" }),
  }));
}

function formData(form) {
  if (!form) return undefined;
  const data = new FormData();
  for (const { name, input } of form) {
    if (input.files?.[0]) data.append(name, input.files[0]);
    else if (input.type !== "file" && input.value) data.append(name, input.value);
  }
  return data;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curl(method, { url, headers }, text, form) {
  const parts = [`curl -sN${method === "GET" || (method === "POST" && (text || form)) ? "" : ` -X ${method}`} ${quoted(location.origin + url)}`];
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (text) parts.push(`-d ${quoted(compact(text))}`);
  for (const { name, input } of form ?? []) {
    const value = input.type === "file" ? `@${input.files?.[0]?.name ?? "FILE"}` : input.value;
    if (value) parts.push(`-F ${quoted(`${name}=${value}`)}`);
  }
  return parts.join(" \\\n  ");
}

function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}

async function send(method, { url, headers }, data, output, signal) {
  const status = element("p", { class: "muted" }, "…");
  const shown = element("pre", {});
  output.replaceChildren(status, shown);
  try {
    const answer = await fetch(url, { method, headers, body: data, signal });
    status.replaceChildren(element("span", { class: `status s${String(answer.status)[0]}` }, String(answer.status)), ` ${answer.headers.get("Content-Type") ?? ""}`);
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
      text += part.value;
      shown.textContent = text.slice(-100000);
    }
    if ((answer.headers.get("Content-Type") ?? "").includes("json")) shown.textContent = json(JSON.parse(text));
  } catch (error) {
    status.append(` ${error.name === "AbortError" ? "stopped" : error.message}`);
  }
}
