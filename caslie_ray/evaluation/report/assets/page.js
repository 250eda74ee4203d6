const PAGE = 24;
const FILTERS = ["search", "task", "split", "verdict", "votes", "truth", "usefulness", "kind"];
const WIDE = matchMedia("(min-width: 720px)");
const data = readJson("data");
const thumbnails = readJson("thumbnails");
const orders = new Map([["worst", data.worst]]);
let matches = [];
let page = 0;

function setUp() {
  const choices = (found, order) => [...order.filter((name) => found.has(name)), ...[...found].filter((name) => !order.includes(name))];
  const truths = data.views.map((view) => view.truth).filter(known);
  const options = {
    task: data.tasks,
    split: data.splits,
    usefulness: choices(new Set(truths.map((truth) => truth.usefulness)), ["useful", "useless", "misleading"]),
    kind: choices(new Set(truths.map((truth) => truth.kind)), ["informative", "placeholder", "blurred", "wrong"]),
  };
  for (const [name, values] of Object.entries(options)) {
    byId(name).append(el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, name === "kind" ? kindName(value) : value)));
  }
  for (const field of document.querySelectorAll(".known")) field.hidden = !truths.length;
  byId("facts").append(...data.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  byId("left-out").hidden = !data.leftOut;
  byId("left-out").textContent =
    `The page shows the worst ${thousands(data.views.length)} of the run’s ${thousands(data.views.length + data.leftOut)} views; ` +
    `${thousands(data.leftOut)} are left out. The figures above are of all views.`;
  byId("controls").hidden = byId("bar").hidden = !data.views.length;
  byId("filters").hidden = !data.views.length;
  showFigures(data.figures);
  showSamples(data, thumbnails);
}

const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

function searched(view, wanted) {
  view.text ??= `${view.context}\n${view.caption ?? ""}`.toLowerCase();
  // A search for a view's id finds that view, so a link can lead to one view.
  return wanted.every((word) => view.text.includes(word) || view.id.toLowerCase() === word);
}

function agreement(view) {
  if (view.disagreement > 0) return "split";
  return view.votes.some(([, answer]) => known(answer)) ? "unanimous" : "none";
}

const TESTS = {
  task: (view, value) => view.task === value,
  split: (view, value) => view.splits.includes(value),
  verdict: (view, value) => stateOf(view) === value,
  votes: (view, value) => agreement(view) === value,
  truth: (view, value) => known(view.truth) && isWrong(view) === (value === "wrong"),
  usefulness: (view, value) => view.truth?.usefulness === value,
  kind: (view, value) => view.truth?.kind === value,
};

const SORTS = {
  disagreement: (view) => -view.disagreement,
  "p-high": (view) => (known(view.mean) ? -view.mean : 1),
  "p-low": (view) => view.mean ?? 2,
  stored: () => 0,
};

function orderOf(sort) {
  if (!orders.has(sort)) {
    const key = data.views.map(SORTS[sort]);
    orders.set(sort, [...key.keys()].sort((one, other) => key[one] - key[other] || one - other));
  }
  return orders.get(sort);
}

function match() {
  const tests = Object.entries(TESTS).filter(([name]) => byId(name).value);
  const wanted = words(byId("search").value);
  matches = orderOf(byId("sort").value).filter((at) => {
    const view = data.views[at];
    return tests.every(([name, test]) => test(view, byId(name).value)) && searched(view, wanted);
  });
}

const lastPage = () => Math.max(0, Math.ceil(matches.length / PAGE) - 1);

function show() {
  page = Math.min(Math.max(page, 0), lastPage());
  const first = page * PAGE;
  const cards = matches.slice(first, first + PAGE).map((at, offset) => cardOf(data.views[at], data, thumbnails, () => open(first + offset)));
  byId("cards").replaceChildren(...cards);
  // Measure all before changing any: one layout instead of one per card.
  const cut = cards.map((card) => card.querySelector(".context")).map((text) => text.scrollHeight > text.clientHeight + 1);
  cards.forEach((card, at) => (card.querySelector(".more").hidden = !cut[at]));
  byId("count").textContent = `${thousands(matches.length)} of ${thousands(data.views.length)} views`;
  byId("empty").hidden = matches.length > 0;
  byId("empty").textContent = data.views.length ? "No view matches these filters." : "There are no views to show.";
  for (const label of document.querySelectorAll(".page")) label.textContent = `page ${thousands(page + 1)} of ${thousands(lastPage() + 1)}`;
  for (const button of document.querySelectorAll("[data-step]")) {
    button.disabled = Number(button.dataset.step) < 0 ? page === 0 : page === lastPage();
  }
  document.querySelector(".bottom").hidden = lastPage() === 0;
  const active = FILTERS.filter((name) => byId(name).value.trim()).length;
  byId("active").textContent = active ? `(${active} active)` : "";
  byId("reset").disabled = !active && byId("sort").value === "worst" && page === 0;
}

function writeHash() {
  const state = new URLSearchParams();
  for (const name of FILTERS) if (byId(name).value.trim()) state.set(name, byId(name).value.trim());
  if (byId("sort").value !== "worst") state.set("sort", byId("sort").value);
  if (page) state.set("page", String(page + 1));
  history.replaceState(null, "", `#${state}`);
}

function clear() {
  for (const name of FILTERS) byId(name).value = "";
  byId("sort").value = "worst";
}

function readHash() {
  const state = new URLSearchParams(location.hash.slice(1));
  clear();
  for (const name of [...FILTERS, "sort"]) {
    const control = byId(name);
    const value = state.get(name) ?? "";
    if (control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value)) control.value = value;
  }
  page = (Number.parseInt(state.get("page") ?? "1", 10) || 1) - 1;
  match();
  show();
}

function changed() {
  page = 0;
  match();
  show();
  writeHash();
}

function turn(step, from) {
  page += step;
  show();
  writeHash();
  if (from?.closest(".bottom")) {
    byId("bar").scrollIntoView();
    document.querySelector(`#bar [data-step="${step}"]:not(:disabled)`)?.focus({ preventScroll: true });
  }
}

let opened = 0;

function open(at) {
  opened = at;
  byId("detail-body").replaceChildren(...detailOf(data.views[matches[at]], data, thumbnails));
  byId("detail-previous").disabled = at === 0;
  byId("detail-next").disabled = at === matches.length - 1;
  if (!byId("detail").open) byId("detail").showModal();
  byId("detail").scrollTop = 0;
}

function step(by) {
  const at = opened + by;
  if (at < 0 || at >= matches.length) return;
  open(at);
  if (Math.floor(at / PAGE) !== page) turn(Math.floor(at / PAGE) - page, null);
}

function listen() {
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => {
    clear();
    changed();
  });
  for (const name of [...FILTERS, "sort"]) byId(name).addEventListener(name === "search" ? "input" : "change", changed);
  for (const button of document.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => turn(Number(button.dataset.step), button));
  }
  byId("detail-close").addEventListener("click", () => byId("detail").close());
  byId("detail-previous").addEventListener("click", () => step(-1));
  byId("detail-next").addEventListener("click", () => step(1));
  byId("detail").addEventListener("click", (event) => {
    if (event.target === byId("detail")) byId("detail").close();
  });
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, .scroll")) return;
    if (byId("detail").open) step(by);
    else if (page + by >= 0 && page + by <= lastPage()) turn(by, null);
  });
  addEventListener("hashchange", readHash);
  const fold = () => (byId("filters").open = WIDE.matches);
  WIDE.addEventListener("change", fold);
  fold();
}

setUp();
listen();
readHash();
document.documentElement.dataset.ready = "";
