const SHOWN_SAMPLES = 12;

function answerRow(answer) {
  const shown = known(answer.answer) ? answer.answer : known(answer.text) ? `cannot be parsed: ${answer.text || "empty"}` : "failed";
  return el(
    "li",
    { class: `answer ${answer.right ? "right" : "wrong"}` },
    el("span", { "aria-hidden": "true" }, answer.right ? "✓ " : "✗ "),
    el("span", { class: "variant" }, answer.variant),
    el("span", { class: "quiet" }, answer.right ? "right: " : "wrong: "),
    el("b", { dir: "auto" }, shown),
  );
}

/** One sample: its question, the answers of the variants, and its images with captions and votes. */
function sampleOf(sample, data, thumbnails) {
  const views = sample.views.map((place) => {
    const view = data.views[place];
    return el(
      "div",
      { class: "sample-view" },
      el("div", { class: "head" }, el("span", { class: "thumb" }, thumbnailOf(view, thumbnails, "")), el("div", { class: "words" }, chips(view), captionOf(view), errorOf(view))),
      votesOf(view, data.voters),
    );
  });
  return el(
    "article",
    { class: "card sample" },
    el("p", { class: "chips" }, el("span", { class: "chip task" }, sample.task), el("span", { class: "chip" }, sample.split)),
    el("p", { class: "context", dir: "auto" }, sample.text),
    el("p", {}, el("span", { class: "quiet" }, "true answer: "), el("b", { dir: "auto" }, sample.output)),
    el("ul", { class: "answers" }, sample.answers.map(answerRow)),
    views,
    sample.moreViews ? el("p", { class: "quiet" }, `… and ${thousands(sample.moreViews)} more images`) : null,
  );
}

/** The samples on which variants differ, filtered by task and by which variants are right. */
function showSamples(data, thumbnails) {
  const section = byId("samples");
  section.hidden = !data.samples.length;
  if (section.hidden) return;
  const variants = [...new Set(data.samples.flatMap((sample) => sample.answers.map(({ variant }) => variant)))];
  const choose = (id, names) => byId(id).append(...names.map((name) => el("option", { value: name }, name)));
  choose("sample-task", ["all", ...new Set(data.samples.map(({ task }) => task))]);
  choose("sample-right", variants);
  choose("sample-wrong", variants);
  if (variants.includes("caslie")) byId("sample-right").value = "caslie";
  byId("sample-wrong").value = variants.find((name) => name !== byId("sample-right").value) ?? variants[0];
  const list = byId("sample-cards");
  const show = () => {
    const [task, right, wrong] = ["sample-task", "sample-right", "sample-wrong"].map((id) => byId(id).value);
    const is = (sample, name, value) => sample.answers.some((answer) => answer.variant === name && answer.right === value);
    const found = data.samples.filter((sample) => (task === "all" || sample.task === task) && is(sample, right, true) && is(sample, wrong, false));
    byId("sample-count").textContent = `${thousands(found.length)} of the samples here${found.length > SHOWN_SAMPLES ? `, the first ${SHOWN_SAMPLES} are shown` : ""}`;
    list.replaceChildren(...found.slice(0, SHOWN_SAMPLES).map((sample) => sampleOf(sample, data, thumbnails)));
  };
  for (const id of ["sample-task", "sample-right", "sample-wrong"]) byId(id).addEventListener("change", show);
  show();
}
