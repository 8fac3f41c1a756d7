// Draws openapi.json as a page, and lets one try each address. No library, no build step.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
};

let api;

const resolved = (schema) =>
  schema && schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;

const named = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.anyOf) return schema.anyOf.map(named).join(" | ");
  if (schema.type === "array") return `list of ${named(schema.items) || "values"}`;
  const kind = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "value";
  return schema.format ? `${kind} (${schema.format})` : kind;
};

const rules = (schema) =>
  ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern", "default"]
    .filter((name) => name in schema && schema[name] !== null)
    .map((name) => `${name} ${JSON.stringify(schema[name])}`)
    .join(", ");

const table = (rows) =>
  make("table", {},
    make("thead", {}, make("tr", {}, ...["Name", "Type", "About"].map((t) => make("th", { scope: "col" }, t)))),
    make("tbody", {}, ...rows.map(([name, schema, required, about]) =>
      make("tr", {},
        make("td", {}, make("code", {}, name), required ? "" : make("span", { class: "about" }, " optional")),
        make("td", {}, named(schema)),
        make("td", {}, [about || schema.description || "", rules(schema)].filter(Boolean).join(" "))))));

const fields = (schema) => {
  const whole = resolved(schema);
  if (!whole || !whole.properties) return null;
  const required = whole.required || [];
  return table(Object.entries(whole.properties).map(([name, one]) => [name, one, required.includes(name), ""]));
};

const nested = (schema, seen = new Set()) => {
  // The components that a schema refers to, each once.
  if (!schema || typeof schema !== "object") return seen;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (seen.has(name)) return seen;
    seen.add(name);
    return nested(resolved(schema), seen);
  }
  for (const one of Object.values(schema)) nested(one, seen);
  return seen;
};

const types = (schema, without) => {
  const names = [...nested(schema)].filter((name) => name !== without);
  return names.map((name) =>
    make("details", {}, make("summary", {}, make("code", {}, name)), fields(api.components.schemas[name]) || ""));
};

const answers = (responses) =>
  make("details", {}, make("summary", {}, "Answers"),
    make("table", {}, make("tbody", {}, ...Object.entries(responses).map(([status, one]) =>
      make("tr", {}, make("td", {}, make("code", { class: status < 400 ? "good" : "bad" }, status)),
        make("td", {}, one.description))))));

const tryIt = (path, verb, operation) => {
  const body = operation.requestBody && Object.entries(operation.requestBody.content)[0];
  const parameters = (operation.parameters || []).filter((one) => one.name !== "Last-Event-ID");
  const inputs = parameters.map((one) => {
    const input = make("input", { type: "text", id: `${operation.operationId}-${one.name}` });
    return [one, input];
  });
  const text = body && make("textarea", { rows: 6, "aria-label": "Body" });
  if (text) text.value = typeof body[1].example === "string" ? body[1].example : JSON.stringify(body[1].example || {}, null, 2);
  const status = make("p", { role: "status" });
  const result = make("pre", { hidden: "" });
  const send = async () => {
    const query = new URLSearchParams();
    const headers = {};
    for (const [one, input] of inputs) {
      if (input.value === "") continue;
      if (one.in === "header") headers[one.name] = input.value;
      else if (one.schema && one.schema.type === "array") input.value.split(",").forEach((v) => query.append(one.name, v.trim()));
      else query.append(one.name, input.value);
    }
    if (body) headers["Content-Type"] = body[0];
    const address = `.${path}${query.size ? `?${query}` : ""}`;
    try {
      const answer = await fetch(address, { method: verb.toUpperCase(), headers, body: text ? text.value : undefined });
      const told = ["Diptych-Token", "Diptych-As-Of", "Diptych-Stale", "Age", "ETag", "Retry-After"]
        .filter((name) => answer.headers.has(name)).map((name) => `${name}: ${answer.headers.get(name)}`);
      status.textContent = `${answer.status} ${answer.statusText}`;
      status.className = answer.ok ? "good" : "bad";
      const content = await answer.text();
      let shown = content;
      try { shown = JSON.stringify(JSON.parse(content), null, 2); } catch { /* not JSON */ }
      result.textContent = [...told, "", shown].join("\n").trim();
    } catch (error) {
      status.textContent = String(error);
      status.className = "bad";
    }
    result.hidden = false;
  };
  const button = make("button", { type: "button" }, "Send");
  button.addEventListener("click", send);
  const buttons = [button];
  if (operation.tags.includes("queries")) {
    const follow = make("button", { type: "button" }, "Follow live");
    let source = null;
    follow.addEventListener("click", () => {
      if (source) { source.close(); source = null; follow.textContent = "Follow live"; return; }
      const query = new URLSearchParams(inputs.filter(([one, i]) => one.in === "query" && i.value).map(([one, i]) => [one.name, i.value]));
      source = new EventSource(`.${path}?${query}`);
      follow.textContent = "Stop";
      result.hidden = false;
      source.onmessage = (event) => { status.textContent = `live, ${new Date().toLocaleTimeString()}`; result.textContent = JSON.stringify(JSON.parse(event.data), null, 2); };
      source.onerror = () => { status.textContent = "connecting …"; };
    });
    buttons.push(follow);
  }
  return make("details", {}, make("summary", {}, "Try it"),
    ...inputs.flatMap(([one, input]) => [make("label", { for: input.id }, one.name, one.required ? "" : " (optional)"), input]),
    text, make("div", {}, ...buttons), status, result);
};

const draw = () => {
  document.title = `${api.info.title}: reference`;
  document.getElementById("title").textContent = api.info.title;
  document.getElementById("about").replaceChildren(
    "Version ", make("code", {}, api.info.version), ". As data: ",
    make("a", { href: "openapi.json" }, "openapi.json"), ", ", make("a", { href: "asyncapi.json" }, "asyncapi.json"), ".");
  const list = document.getElementById("list");
  const main = document.getElementById("main");
  const groups = {};
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(item)) {
      const kind = operation.tags[0];
      groups[kind] ||= list.appendChild(make("div", {}, make("h2", {}, kind)));
      groups[kind].append(make("a", { href: `#${operation.operationId}`, "data-text": `${path} ${operation.description}`.toLowerCase() }, path.split("/").pop()));
      const media = operation.requestBody && Object.values(operation.requestBody.content)[0];
      const sent = media && media.schema;
      const parameters = (operation.parameters || []).map((one) =>
        [one.name, one.schema || one.content["application/json"].schema, one.required, one.in === "header" ? `Header. ${one.description || ""}` : one.description]);
      const good = operation.responses["200"].content;
      const answered = good && Object.values(good)[0].schema;
      main.append(make("section", { id: operation.operationId, "data-text": `${path} ${operation.description}`.toLowerCase() },
        make("h2", {}, make("span", { class: `verb ${kind}` }, verb.toUpperCase()), make("code", {}, path)),
        make("p", {}, operation.description || operation.summary),
        sent ? fields(sent) : null,
        parameters.length ? table(parameters) : null,
        make("p", {}, "Answer: ", make("code", {}, named(answered))),
        ...types([sent, answered, (operation.parameters || []).map((one) => one.schema)], sent && sent.$ref && sent.$ref.split("/").pop()),
        answers(operation.responses),
        tryIt(path, verb, operation)));
    }
  }
  document.getElementById("search").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const node of document.querySelectorAll("[data-text]")) node.hidden = !node.dataset.text.includes(wanted);
  });
};

fetch("openapi.json").then((answer) => answer.json()).then((found) => { api = found; draw(); })
  .catch((error) => { document.getElementById("about").textContent = `openapi.json cannot be read: ${error}`; });
