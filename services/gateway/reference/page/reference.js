// The page: loads both documents, lists what is in them, finds what is searched for.

import { channelCard } from "./channels.js";
import { element, phrase, prose } from "./elements.js";
import { operationCard } from "./operations.js";
import { Schemas } from "./schemas.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const $ = (id) => document.getElementById(id);
const token = () => $("token").value.trim();

async function load(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// What the paths of a group have in common goes without saying in the contents.
function shared(paths) {
  const [first = "", ...others] = paths;
  const steps = first.split("/").slice(0, -1);
  while (steps.length > 1 && !others.every((path) => path.startsWith(`${steps.join("/")}/`))) steps.pop();
  if (paths.some((path) => path.slice(steps.join("/").length).length < 2)) steps.pop();
  return paths.length > 1 ? steps.join("/") : "";
}

function httpGroups(openapi) {
  const schemas = new Schemas(openapi.components.schemas);
  const resolveResponse = (one) => (one.$ref ? openapi.components.responses[one.$ref.split("/").pop()] : one);
  const operations = Object.entries(openapi.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method: method.toUpperCase(), told: item[method], resolveResponse })));
  return openapi.tags.map((tag) => {
    const own = operations.filter((one) => one.told.tags.includes(tag.name));
    const prefix = shared(own.map((one) => one.path));
    return {
      title: tag.name,
      meaning: tag.description,
      entries: own.map((one) => ({
        mark: one.method,
        label: one.path.slice(prefix.length),
        words: `${one.method} ${one.path} ${one.told.summary} ${one.told.description ?? ""} ${one.told.operationId}`,
        card: operationCard(one, schemas, token),
      })),
    };
  });
}

function channelGroups(asyncapi) {
  const schemas = new Schemas(asyncapi.components.schemas);
  const operations = Object.values(asyncapi.operations);
  const { messages } = asyncapi.components;
  return asyncapi.info.tags.map((tag) => ({
    title: tag.name,
    meaning: tag.description,
    entries: Object.entries(asyncapi.channels)
      .filter(([, channel]) => channel.address && channel.tags[0].name === tag.name)
      .map(([name, channel]) => {
        const own = operations.filter((one) => one.channel.$ref === `#/channels/${name}`);
        const said = Object.keys(channel.messages).map((one) => messages[one].name).join(" ");
        return {
          mark: channel.bindings?.ws ? "WS" : "BUS",
          label: channel.bindings?.ws ? channel.address : name.replace(/^(fact|request|signal)\./, ""),
          words: `${channel.address} ${channel.summary ?? ""} ${channel.description ?? ""} ${said}`,
          card: channelCard(name, channel, own, messages, schemas, token),
        };
      }),
  }));
}

function part(title, document, source, groups) {
  const lead = element("section", { class: "lead" }, element("h2", { id: title.replaceAll(" ", "-") }, title), ...prose(document.info.description),
    element("p", { class: "muted" }, "As a document: ", element("a", { href: source }, source), "."));
  const sections = groups.map((group) => {
    group.section = element("section", { id: `group-${group.title}` },
      element("h3", {}, group.title), element("p", { class: "muted" }, phrase(group.meaning)), group.entries.map((entry) => entry.card));
    group.list = element("ul", {}, group.entries.map((entry) => {
      const link = element("a", { href: `#${entry.card.id}` }, element("span", { class: `mark ${entry.mark}` }, entry.mark === "DELETE" ? "DEL" : entry.mark), element("span", { title: entry.label }, entry.label));
      entry.item = element("li", {}, link);
      return entry.item;
    }));
    group.contents = element("div", {}, element("a", { class: "group", href: `#group-${group.title}` }, group.title), group.list);
    return group.section;
  });
  $("contents").append(element("h2", {}, title), ...groups.map((group) => group.contents));
  $("main").append(lead, ...sections);
}

function find(groups) {
  const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const group of groups) {
    let found = 0;
    for (const entry of group.entries) {
      const hit = wanted.every((word) => `${group.title} ${entry.words}`.toLowerCase().includes(word));
      entry.card.hidden = entry.item.hidden = !hit;
      found += hit;
    }
    group.section.hidden = group.contents.hidden = !found;
    left += found;
  }
  for (const lead of document.querySelectorAll(".lead")) lead.hidden = wanted.length > 0;
  $("nothing").hidden = left > 0;
}

function show() {
  const card = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  $("contents").classList.remove("open");
  $("menu").setAttribute("aria-expanded", "false");
  if (!card) return;
  if (card.matches("details")) card.open = true;
  card.scrollIntoView({ block: "start" });
  for (const link of document.querySelectorAll("nav a")) link.toggleAttribute("aria-current", link.hash === location.hash);
}

function themes() {
  const root = document.documentElement;
  const set = (theme) => (theme ? root.setAttribute("data-theme", theme) : root.removeAttribute("data-theme"));
  set(localStorage.getItem("theme"));
  $("theme").addEventListener("click", () => {
    const dark = (localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    localStorage.setItem("theme", dark ? "light" : "dark");
    set(localStorage.getItem("theme"));
  });
}

async function begin() {
  themes();
  const [openapi, asyncapi] = await Promise.all([load("/api/openapi.json"), load("/api/asyncapi.json")]);
  $("version").textContent = openapi.info.version;
  const http = httpGroups(openapi);
  const channels = channelGroups(asyncapi);
  part("Over HTTP", openapi, "/api/openapi.json", http);
  part("Sockets and bus", asyncapi, "/api/asyncapi.json", channels);
  $("main").append(element("p", { id: "nothing", class: "muted", hidden: true }, "Nothing is called like that."));

  $("search").addEventListener("input", () => find([...http, ...channels]));
  $("credential").addEventListener("submit", (event) => event.preventDefault());
  $("token").addEventListener("input", () => window.dispatchEvent(new Event("token")));
  $("menu").addEventListener("click", () => {
    const open = $("contents").classList.toggle("open");
    $("menu").setAttribute("aria-expanded", String(open));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.matches("input, textarea, select")) {
      event.preventDefault();
      $("search").focus();
    }
  });
  window.addEventListener("hashchange", show);
  show();
}

begin().catch((error) => $("main").append(element("p", { class: "failed" }, `The description cannot be shown: ${error.message}`)));
