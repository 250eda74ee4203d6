"use strict";

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function showSchema(name, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, inner]) => make("tr", {},
    make("td", {}, make("code", {}, field), required.has(field) ? " (required)" : ""),
    make("td", {}, typeOf(inner)), make("td", {}, inner.description ?? "")));
  return make("details", {}, make("summary", {}, name), make("p", {}, schema.description ?? ""),
    make("table", {}, make("tbody", {}, ...rows)));
}

function bodyOf(operation) {
  const content = operation.requestBody?.content ?? {};
  return Object.entries(content).map(([type, one]) => make("p", { className: "small" }, `${type}: ${typeOf(one.schema)}`));
}

async function start() {
  const response = await fetch("/openapi.json");
  if (!response.ok) {
    document.getElementById("state").textContent = "this server requires a token for openapi.json";
    return;
  }
  const api = await response.json();
  const routes = Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => make("section", {},
      make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)),
      make("p", {}, operation.description ?? operation.summary ?? ""), ...bodyOf(operation))));
  const schemas = Object.entries(api.components.schemas).map(([name, schema]) => showSchema(name, schema));
  document.getElementById("state").textContent = `version ${api.info.version}`;
  document.getElementById("routes").replaceChildren(...routes, make("h2", {}, "Schemas"), ...schemas);
}

start();
