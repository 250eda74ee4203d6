"use strict";

const byId = (id) => document.getElementById(id);
let setup = null;
let images = []; // {url} for the preview, and {file} or {data}
let examples = {};

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function chosenTask() {
  return setup.tasks.find((task) => task.name === byId("task").value);
}

function showTask() {
  const task = chosenTask();
  const fields = task.fields.length ? task.fields : [{ name: "history", required: true }];
  byId("fields").replaceChildren(...fields.map((field) => {
    const rows = field.name === "history" || field.name === "review" ? 5 : 2;
    const box = make("textarea", { rows, required: field.required });
    box.dataset.field = field.name;
    const hint = field.name === "history" ? "history, one title per line" : field.name;
    return make("label", {}, `${hint}${field.required ? "" : " (optional)"} `, box);
  }));
  byId("options").value = task.labels.join("\n");
  const found = examples[task.name] || [];
  byId("examples").replaceChildren(...found.map((example, number) => {
    const button = make("button", { type: "button", textContent: `Example ${number + 1}` });
    button.addEventListener("click", () => showExample(example));
    return button;
  }));
  setImages([]);
  byId("result").replaceChildren();
}

function showExample(example) {
  for (const box of byId("fields").querySelectorAll("textarea")) {
    const value = example.fields[box.dataset.field] ?? "";
    box.value = Array.isArray(value) ? value.join("\n") : value;
  }
  byId("options").value = example.options.join("\n");
  setImages(example.images.map((data) => ({ url: data, data })));
  byId("result").replaceChildren();
}

function setImages(list) {
  images = list;
  byId("images").replaceChildren(...images.map((image, number) => {
    const remove = make("button", { type: "button", textContent: "remove" });
    remove.addEventListener("click", () => setImages(images.filter((_, other) => other !== number)));
    return make("figure", {}, make("img", { src: image.url, alt: `image ${number + 1}` }), remove);
  }));
}

function addFiles(files) {
  setImages([...images, ...[...files].map((file) => ({ file, url: URL.createObjectURL(file) }))]);
}

function question() {
  const fields = {};
  for (const box of byId("fields").querySelectorAll("textarea")) {
    const text = box.value.trim();
    if (box.dataset.field === "history") fields.history = text.split("\n").filter((line) => line.trim());
    else if (text) fields[box.dataset.field] = text;
  }
  const options = byId("options").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return {
    task: byId("task").value, fields, model: byId("model").value, allow_text_only: true,
    options: options.length ? options : null,
    images: images.map((image) => (image.file ? {} : { base64: image.data })),
  };
}

async function send(body) {
  const headers = {};
  const token = byId("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  const files = images.filter((image) => image.file).map((image) => image.file);
  if (!files.length) {
    headers["Content-Type"] = "application/json";
    return fetch("/v1/predict", { method: "POST", headers, body: JSON.stringify(body) });
  }
  const form = new FormData();
  form.append("request", JSON.stringify(body));
  for (const file of files) form.append("image", file, file.name);
  return fetch("/v1/predict", { method: "POST", headers, body: form });
}

function showVote(vote) {
  const kind = vote.answer ?? "failed";
  const share = vote.p_yes === null ? "" : ` ${(100 * vote.p_yes).toFixed(0)}%`;
  return make("li", { className: kind, title: vote.error ?? "probability of yes" }, `${vote.voter}: ${kind}${share}`);
}

function showView(view, number) {
  const shown = images[number];
  const preview = shown ? make("img", { src: shown.url, alt: `image ${number + 1}` }) : "no image";
  const parts = [];
  if (view === null) parts.push("no image");
  else {
    parts.push(make("p", { className: "caption", textContent: view.caption ?? view.error ?? "no caption" }));
    if (view.votes.length) parts.push(make("ul", { className: "votes" }, ...view.votes.map(showVote)));
    if (view.verdict !== null) {
      const text = view.verdict ? "the caption helps: it is used" : "the caption is not used";
      parts.push(make("p", { className: `verdict small ${view.verdict ? "yes" : "no"}`, textContent: text }));
    }
    if (view.error) parts.push(make("p", { className: "problem small", textContent: view.error }));
  }
  return make("div", { className: "view" }, make("figure", {}, preview), make("div", {}, ...parts));
}

function showResult(result) {
  const chances = (result.probabilities ?? []).map((one) => {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${Math.round(100 * one.probability)}%`;
    const share = `${(100 * one.probability).toFixed(1)}%`;
    return make("tr", {}, make("td", {}, one.option), make("td", {}, share), make("td", { width: "40%" }, bar));
  });
  const times = Object.entries(result.timings).map(([part, seconds]) => `${part} ${seconds.toFixed(2)} s`).join(" · ");
  const prints = Object.entries(result.models).map(([name, print]) => `${name} ${print.slice(0, 12)}`).join(" · ");
  byId("result").replaceChildren(
    make("h2", {}, "Answer"),
    make("p", { className: "answer", textContent: result.answer ?? `no option: ${result.text}` }),
    make("table", {}, make("tbody", {}, ...chances)),
    result.note ? make("p", { className: "problem small", textContent: result.note }) : "",
    make("h2", {}, "Captions and votes"),
    ...result.views.map(showView),
    make("p", { className: "small timings", textContent: `${times} · ${result.cached} answers from the cache` }),
    make("p", { className: "small", textContent: `request ${result.request_id} · ${prints}` }),
  );
}

function showProblem(title, detail) {
  byId("result").replaceChildren(make("h2", {}, title), make("p", { className: "problem", textContent: detail }));
}

async function ask(event) {
  event.preventDefault();
  byId("ask").disabled = true;
  byId("result").replaceChildren(make("p", { textContent: "asking the models …" }));
  try {
    const response = await send(question());
    const body = await response.json();
    if (response.ok) showResult(body);
    else showProblem(body.title, `${body.field ? `${body.field}: ` : ""}${body.detail}`);
  } catch (error) {
    showProblem("The server cannot be reached", String(error));
  } finally {
    byId("ask").disabled = false;
  }
}

async function showState() {
  try {
    const response = await fetch("/readyz");
    const body = await response.json();
    byId("state").textContent = response.ok ? "ready" : body.detail;
    if (!response.ok) setTimeout(showState, 2000);
  } catch {
    byId("state").textContent = "the server cannot be reached";
    setTimeout(showState, 5000);
  }
}

async function start() {
  showState();
  setup = await (await fetch("/examples.json")).json();
  examples = setup.examples;
  byId("task").replaceChildren(
    ...setup.tasks.map((task) => make("option", { value: task.name, textContent: `${task.code} · ${task.title}` })));
  byId("model").replaceChildren(
    ...setup.models.map((name) => make("option", { value: name, textContent: name, selected: name === setup.default })));
  byId("task").addEventListener("change", showTask);
  byId("question").addEventListener("submit", ask);
  byId("files").addEventListener("change", (event) => { addFiles(event.target.files); event.target.value = ""; });
  const drop = byId("drop");
  for (const name of ["dragover", "dragenter"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); addFiles(event.dataTransfer.files); });
  showTask();
}

start();
