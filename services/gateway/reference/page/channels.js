// One channel: a socket that can be tried, or a subject of the bus.

import { copyButton, element, json, phrase, prose } from "./elements.js";

export function channelCard(name, channel, operations, messages, schemas, token) {
  const socket = Boolean(channel.bindings?.ws);
  const card = element("details", { class: "card", id: `channel-${name}` });
  card.append(
    element("summary", {},
      element("span", { class: `method ${socket ? "WS" : "BUS"}` }, socket ? "WS" : "NATS"),
      element("span", { class: "path" }, channel.address),
      element("span", { class: "summary" }, phrase(channel.summary ?? (channel.description ?? "").split(/(?<=\.)\s/)[0]))),
  );
  card.addEventListener("toggle", () => {
    if (!card.open || card.children.length > 1) return;
    const parts = [...prose(channel.description)];
    for (const [title, list] of sides(operations, socket)) {
      if (list.length) parts.push(element("h4", {}, title), ...list.map((one) => message(messages[one], schemas)));
    }
    if (socket) parts.push(element("h4", {}, "Try it"), conversation(channel, operations, messages, schemas, token));
    card.append(element("div", { class: "body" }, parts));
  });
  return card;
}

const last = (reference) => reference.$ref.split("/").pop();

function sides(operations, socket) {
  const of = (action) => operations.filter((one) => one.action === action).flatMap((one) => one.messages.map(last));
  const answers = operations.flatMap((one) => (one.reply?.messages ?? []).map(last));
  if (socket) return [["The client may say", of("receive")], ["The client is told", of("send")]];
  return [["Messages", of("send")], ["Request", of("receive")], ["Answer", answers]];
}

function message(told, schemas) {
  const head = element("summary", {}, element("code", {}, told.name), " ", element("span", { class: "muted" }, phrase(told.summary)));
  const view = schemas.view(told.payload);
  return element("details", { class: "kind" }, head, ...prose(told.description), view ?? element("p", {}, element("code", {}, schemas.type(told.payload))));
}

// -- trying --------------------------------------------------------------------------

function conversation(channel, operations, messages, schemas, token) {
  const places = Object.keys(channel.parameters ?? {}).map((name) => ({
    name,
    input: element("input", { type: "text", placeholder: "uuid", spellcheck: "false", autocomplete: "off" }),
  }));
  const says = operations.filter((one) => one.action === "receive").flatMap((one) => one.messages.map(last));
  const text = element("textarea", { rows: 3, spellcheck: "false", "aria-label": "Message" });
  const choice = element("select", { "aria-label": "Kind of message" }, says.map((one) => element("option", { value: one }, messages[one].name)));
  const pick = () => (text.value = json(schemas.example(messages[choice.value].payload)));
  choice.addEventListener("change", pick);
  pick();

  const log = element("pre", { class: "log" });
  const note = (mark, words) => {
    log.append(`${mark} ${words}\n`);
    log.scrollTop = log.scrollHeight;
  };
  const address = () => {
    let path = channel.address;
    for (const { name, input } of places) path = path.replace(`{${name}}`, encodeURIComponent(input.value.trim()));
    const query = token() ? `?token=${encodeURIComponent(token())}` : "";
    return `${location.origin.replace(/^http/, "ws")}${path}${query}`;
  };
  let socket;
  const connect = element("button", { type: "button" }, "Connect");
  const send = element("button", { type: "button", disabled: true }, "Send");
  connect.addEventListener("click", () => {
    if (socket) return socket.close(1000);
    socket = new WebSocket(address());
    connect.textContent = "Close";
    socket.onopen = () => ((send.disabled = false), note("–", "open"));
    socket.onmessage = (event) => note("◂", event.data);
    socket.onclose = (event) => {
      note("–", `closed: ${event.code} ${event.reason}`);
      socket = undefined;
      send.disabled = true;
      connect.textContent = "Connect";
    };
  });
  send.addEventListener("click", () => {
    socket?.send(text.value);
    note("▸", text.value.replace(/\s+/g, " "));
  });
  return element("div", { class: "trial" },
    places.map(({ name, input }) => element("label", {}, element("span", {}, name), input)),
    element("div", { class: "buttons" }, connect, choice, send, copyButton(address, "Copy address")),
    text, log);
}
