function thumbnailOf(view, thumbnails, name) {
  if (!known(view.thumbnail)) return el("span", { class: "no-thumbnail", role: "img", "aria-label": "no image" }, "no image");
  const image = el("img", { alt: name, decoding: "async", loading: "lazy" });
  image.src = `data:image/webp;base64,${thumbnails[view.thumbnail]}`;
  return image;
}

const stateOf = (view) => (known(view.error) ? "error" : view.verdict ? "used" : "unused");
const STATE_NAMES = { used: "caption used", unused: "caption not used", error: "error" };

function chips(view) {
  return el(
    "p",
    { class: "chips" },
    el("span", { class: "chip task" }, view.task),
    view.splits.map((split) => el("span", { class: "chip" }, split)),
    el("span", { class: `chip verdict ${stateOf(view)}` }, STATE_NAMES[stateOf(view)]),
  );
}

function voteRow([voter, answer, share, error], voters) {
  const name = el("span", { class: "voter" }, voters[voter]);
  if (!known(answer)) {
    return el("li", { class: "vote failed" }, name, el("span", { class: "reason" }, `failed: ${error ?? "no answer"}`));
  }
  const track = el("span", { class: "track", "aria-hidden": "true" });
  if (known(share)) {
    const fill = el("span", { class: "fill" });
    fill.style.width = percent(within(share), 1);
    track.append(fill);
  }
  const result = el("span", { class: "answer-text" }, el("b", {}, answer), known(share) ? ` ${percent(share)}` : "");
  return el("li", { class: `vote ${answer === "yes" ? "yes" : "no"}` }, name, track, result);
}

function votesOf(view, voters) {
  if (!view.votes.length) return known(view.caption) ? el("p", { class: "quiet" }, "No voter was asked.") : null;
  const asked = new Set(view.votes.map(([voter]) => voter));
  const skipped = known(view.error) ? [] : voters.filter((_, at) => !asked.has(at));
  return [
    el("ul", { class: "votes", "aria-label": "Votes, with the probability of yes" }, view.votes.map((v) => voteRow(v, voters))),
    skipped.length ? el("p", { class: "quiet" }, `not asked: ${skipped.join(", ")}`) : null,
  ];
}

const isWrong = (view) => known(view.truth) && view.verdict !== view.truth.helps;

function outcome(view) {
  if (isWrong(view)) {
    return view.verdict ? "Wrong: used, though it does not help" : "Wrong: not used, though it helps";
  }
  if (!known(view.caption)) return "No caption";
  return view.verdict ? "Right: used, and it helps" : "Right: not used, it does not help";
}

const KIND_NAMES = { wrong: "wrong product" };
const kindName = (kind) => KIND_NAMES[kind] ?? kind;

function seen({ kind, shown, product }) {
  if (!known(shown)) return `${kindName(kind)}, nothing can be seen`;
  return `${kindName(kind)}, shows ${shown === product ? "the product" : shown}`;
}

function asked({ asks, lacks }) {
  if (!asks.length) return ["nothing"];
  return asks.flatMap((name, at) => {
    const open = lacks.includes(name);
    return [at ? ", " : "", open ? el("b", {}, name) : name, open ? " (not in the text)" : ""];
  });
}

function truthOf(view) {
  if (!known(view.truth)) return null;
  const line = (name, ...value) => [el("dt", {}, name), el("dd", {}, ...value)];
  const wrong = isWrong(view);
  return el(
    "div",
    { class: "truth" },
    el("p", { class: `outcome ${wrong ? "wrong" : "right"}` }, el("span", { "aria-hidden": "true" }, wrong ? "✗ " : "✓ "), outcome(view)),
    el(
      "dl",
      {},
      line("Product", view.truth.product),
      line("Image kind", seen(view.truth)),
      line("Asked", ...asked(view.truth)),
      line("Usefulness", view.truth.usefulness),
    ),
  );
}

const captionOf = (view) =>
  known(view.caption)
    ? el("p", { class: "caption", dir: "auto" }, view.caption)
    : el("p", { class: "caption none" }, "no caption");

const errorOf = (view) => (known(view.error) ? el("p", { class: "failure" }, view.error) : null);

/** One view as a card; `open` is called when its image is clicked. */
function cardOf(view, data, thumbnails, open) {
  const context = el("p", { class: "context clamped", dir: "auto" }, view.context);
  const more = el("button", { type: "button", class: "more", "aria-expanded": "false" }, "full context");
  more.addEventListener("click", () => {
    const clamped = context.classList.toggle("clamped");
    more.setAttribute("aria-expanded", String(!clamped));
    more.textContent = clamped ? "full context" : "less";
  });
  const thumb = el("button", { type: "button", class: "thumb", "aria-label": "Enlarge" }, thumbnailOf(view, thumbnails, ""));
  thumb.addEventListener("click", open);
  const card = el(
    "article",
    { class: `card${isWrong(view) ? " wrong" : ""}` },
    el("div", { class: "head" }, thumb, el("div", { class: "words" }, chips(view), captionOf(view), errorOf(view))),
    el("div", { class: "about" }, context, more),
    votesOf(view, data.voters),
    truthOf(view),
  );
  card.dataset.view = view.id;
  return card;
}

/** The same view enlarged, for the dialog. */
function detailOf(view, data, thumbnails) {
  return [
    el("div", { class: "large" }, thumbnailOf(view, thumbnails, "the image of this view")),
    el(
      "div",
      { class: "words" },
      chips(view),
      el("h3", {}, "Caption"),
      captionOf(view),
      errorOf(view),
      el("h3", {}, "Context"),
      el("p", { class: "context", dir: "auto" }, view.context),
      el("h3", {}, "Votes"),
      votesOf(view, data.voters) ?? el("p", { class: "quiet" }, "none"),
      truthOf(view),
      el("p", { class: "quiet id" }, `view ${view.id}`),
    ),
  ];
}
