// Making elements, and turning the little Markdown of the descriptions into them.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const INLINE = /`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)|\*\*([^*]+)\*\*/g;

function inline(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    parts.push(text.slice(from, found.index));
    from = found.index + found[0].length;
    const [, code, words, target, strong] = found;
    if (code !== undefined) parts.push(element("code", {}, code));
    else if (strong !== undefined) parts.push(element("strong", {}, strong));
    else if (/^(https?:|\/|#)/.test(target)) parts.push(element("a", { href: target }, inline(words)));
    else parts.push(words);
  }
  parts.push(text.slice(from));
  return parts;
}

export function prose(text, name = "p") {
  return (text ?? "").split("\n\n").filter(Boolean).map((paragraph) => element(name, {}, inline(paragraph)));
}

export function phrase(text) {
  return inline((text ?? "").replaceAll("\n\n", " "));
}

export function copyButton(text, label = "Copy") {
  const button = element("button", { class: "copy", type: "button" }, label);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

export function json(value) {
  return JSON.stringify(value, null, 2);
}
