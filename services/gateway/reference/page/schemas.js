// JSON Schemas as something to read: types in a line, fields in rows, an example.

import { element, phrase } from "./elements.js";

const DEEPEST = 6;

export class Schemas {
  constructor(components) {
    this.components = components;
  }

  resolve(schema) {
    const at = schema?.$ref;
    return at ? (this.components[at.split("/").pop()] ?? {}) : (schema ?? {});
  }

  // "string | null", "MessageView[]", "date-time"
  type(schema) {
    if (schema.$ref) return schema.$ref.split(".").pop();
    if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => this.type(one)))].join(" | ");
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    if ("const" in schema) return JSON.stringify(schema.const);
    if (schema.type === "array") {
      const of = Array.isArray(schema.items) ? "[…]" : this.type(schema.items ?? {});
      return of.includes(" | ") ? `(${of})[]` : `${of}[]`;
    }
    if (schema.contentSchema) return this.type(schema.contentSchema);
    if (schema.type === "object" && schema.additionalProperties) {
      return `{[name]: ${this.type(schema.additionalProperties)}}`;
    }
    return schema.format ?? schema.type ?? "anything";
  }

  limits(schema) {
    const found = [];
    const of = (schema.anyOf ?? []).find((one) => one.type !== "null") ?? schema;
    if (of.minimum !== undefined && of.maximum !== undefined && of.maximum < 1e9) found.push(`${of.minimum} to ${of.maximum}`);
    else if (of.minimum !== undefined && of.minimum > -1e9) found.push(`from ${of.minimum}`);
    if (of.maxLength) found.push(`${of.maxLength} characters at most`);
    if (of.maxItems) found.push(`${of.maxItems} at most`);
    if (!["undefined", "null", '""', "[]", "{}"].includes(String(JSON.stringify(schema.default)))) {
      found.push(`default ${JSON.stringify(schema.default)}`);
    }
    return found.join(", ");
  }

  // What can be opened below a type: the fields of its objects.
  view(schema, depth = 0) {
    const own = this.resolve(schema);
    if (depth > DEEPEST) return null;
    if (own.contentSchema) return this.view(own.contentSchema, depth);
    if (own.type === "array" && own.items && !Array.isArray(own.items)) return this.view(own.items, depth);
    if (own.anyOf) {
      const objects = own.anyOf.filter((one) => one.$ref || one.properties);
      if (objects.length === 1) return this.view(objects[0], depth);
      return objects.length ? element("div", { class: "kinds" }, objects.map((one) => this.kind(one, depth))) : null;
    }
    if (own.additionalProperties?.$ref) return this.view(own.additionalProperties, depth);
    if (!own.properties) return null;
    const rows = Object.entries(own.properties).map(([name, field]) => this.row(name, field, own.required ?? [], depth));
    return rows.length ? element("div", { class: "fields" }, rows) : null;
  }

  kind(schema, depth) {
    const own = this.resolve(schema);
    const tag = own.properties?.type?.enum?.[0] ?? this.type(schema);
    const details = element("details", { class: "kind" });
    details.append(element("summary", {}, element("code", {}, tag), " ", element("span", { class: "muted" }, phrase(own.description))));
    this.onOpen(details, () => this.view(schema, depth + 1));
    return details;
  }

  row(name, field, required, depth) {
    const more = this.view(field, depth + 1);
    const words = [phrase(field.description ?? ""), this.limits(field)].filter((part) => part.length);
    const line = [
      element("span", { class: "field" }, name, required.includes(name) ? element("sup", { title: "required" }, "∗") : null),
      element("span", { class: "type" }, this.type(field)),
      element("span", { class: "words" }, words.length === 2 ? [...words[0], " ", element("span", { class: "muted" }, words[1])] : words.flat()),
    ];
    if (!more) return element("div", { class: "row" }, line);
    const details = element("details", { class: "row" }, element("summary", {}, line));
    this.onOpen(details, () => more);
    return details;
  }

  onOpen(details, content) {
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(content() ?? "");
    });
  }

  // A value that fits: what is required, and what has an example.
  example(schema, depth = 0) {
    const own = this.resolve(schema);
    if (own.examples?.length) return own.examples[0];
    if (own.enum) return own.enum[0];
    if (own.default !== undefined) return own.default;
    if (own.anyOf) return this.example(own.anyOf.find((one) => one.type !== "null") ?? {}, depth + 1);
    if (own.type === "array") return own.minItems ? [this.example(own.items, depth + 1)] : [];
    if (own.properties) {
      const names = Object.keys(own.properties).filter(
        (name) => own.required?.includes(name) || this.resolve(own.properties[name]).examples,
      );
      return Object.fromEntries(names.map((name) => [name, depth > DEEPEST ? null : this.example(own.properties[name], depth + 1)]));
    }
    return { string: "", integer: own.minimum ?? 0, number: 0, boolean: false, object: {} }[own.type] ?? null;
  }
}
