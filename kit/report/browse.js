// The page's only script, for browsing replies. It asks for nothing and keeps nothing, and whatever a model or a data set
// said goes through textContent alone, so that it stays text.
"use strict";
(() => {
  const FLEXIBLE = 2, IN_FORMAT = 4, CUT_OFF = 8; // as in kit/report/replies.py; strict is 1, by the reading's value
  const at = (id) => document.getElementById(id);
  if (location.protocol === "about:") { // in the notebook's frame "#scores" would be a place of the notebook
    for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", (event) => {
      event.preventDefault();
      at(link.hash.slice(1)).scrollIntoView();
    });
  }
  if (!at("replies")) return;
  const sets = JSON.parse(at("replies").textContent);
  const section = at("browse"), place = at("place"), shown = at("shown");
  const [choose, before, after, reading, search] = ["set", "before", "after", "reading", "search"].map(at);
  const [previous, next] = [at("previous"), at("next")];
  let set, matches = [], current = 0;

  const count = (number) => number.toLocaleString("en");
  const made = (tag, text, kind) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const fill = (select, names, chosen) => {
    select.replaceChildren(...names.map((name, number) => new Option(name, number, number === chosen, number === chosen)));
  };

  // A question of a set: [index, question, gold, rows]; a row: [flags, reply or the place of the row that said the same].
  const row = (entry, place) => entry[3][place];
  const reply = (entry, place) => {
    const said = row(entry, place)[1];
    return typeof said === "number" ? row(entry, said)[1] : said;
  };
  const sides = () => [Number(before.value), Number(after.value)];

  const FILTERS = {
    all: () => true,
    won: (was, is, right) => !(was & right) && is & right,
    lost: (was, is, right) => was & right && !(is & right),
    neither: (was, is, right) => !(was & right) && !(is & right),
    format: (was, is) => !(is & IN_FORMAT),
    cut: (was, is) => is & CUT_OFF,
  };
  const filter = () => section.querySelector("input[name=filter]:checked").value;

  // What the search leaves, by each filter; with the counts on the filters themselves.
  function find() {
    const [one, other] = sides(), right = Number(reading.value), wanted = search.value.trim().toLowerCase();
    const found = set.questions.filter((entry) => row(entry, one) && row(entry, other) && (!wanted ||
      [entry[1], entry[2], reply(entry, one), reply(entry, other)].some((text) => text.toLowerCase().includes(wanted))));
    const by = (name) => found.filter((entry) => FILTERS[name](row(entry, one)[0], row(entry, other)[0], right));
    for (const name of Object.keys(FILTERS)) at(`count-${name}`).textContent = count(by(name).length);
    at("filter-cut").hidden = !set.knowsCutOff;
    const now = matches[current];
    matches = by(filter());
    current = Math.max(0, matches.indexOf(now));
    show();
  }

  function show() {
    const entry = matches[current];
    previous.disabled = !entry || current === 0;
    next.disabled = !entry || current === matches.length - 1;
    place.textContent = entry
      ? `${count(current + 1)} of ${count(matches.length)}`
      : "no question is like that";
    shown.replaceChildren();
    if (!entry) return;
    shown.append(made("p", `question ${count(entry[0] + 1)} of ${count(set.total)}`, "quiet"),
      made("h3", entry[1]), made("p", `answer: ${entry[2]}`, "quiet"));
    const both = made("div", "", "sides");
    for (const side of new Set(sides())) both.append(card(entry, side));
    shown.append(both);
  }

  function card(entry, side) {
    const flags = row(entry, side)[0], title = made("p", ""), element = made("div", "", "card");
    const right = flags & Number(reading.value);
    title.append(made("b", set.rows[side]), " ", made("span", right ? "right" : "wrong", right ? "right" : "wrong"));
    if (!right && flags & FLEXIBLE) title.append(made("span", ", right in another form", "quiet"));
    if (!(flags & IN_FORMAT)) title.append(made("span", ", not in format", "quiet"));
    if (flags & CUT_OFF) title.append(made("span", ", cut off", "quiet"));
    element.append(title, made("pre", reply(entry, side)));
    return element;
  }

  function turn(by) {
    const to = current + by;
    if (to < 0 || to >= matches.length) return;
    current = to;
    show();
  }

  function take() {
    set = sets[Number(choose.value)];
    matches = [];
    fill(before, set.rows, set.before);
    fill(after, set.rows, set.after);
    if (!set.knowsCutOff && filter() === "cut") section.querySelector("input[value=all]").checked = true;
    for (const told of document.querySelectorAll("[data-set]")) told.hidden = told.dataset.set !== choose.value;
    find();
  }

  fill(choose, sets.map((one) => one.title), 0);
  choose.parentElement.hidden = sets.length < 2;
  choose.addEventListener("change", take);
  for (const control of [before, after, reading]) control.addEventListener("change", find);
  for (const control of section.querySelectorAll("input[name=filter]")) control.addEventListener("change", find);
  search.addEventListener("input", find);
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  document.addEventListener("keydown", (event) => {
    const on = document.activeElement;
    const elsewhere = on && on !== document.body && !section.contains(on);
    if (elsewhere || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (on && on.matches("input, select")) return; // there the arrows have a meaning of their own
    if (event.key === "ArrowLeft") turn(-1);
    else if (event.key === "ArrowRight") turn(1);
    else return;
    event.preventDefault();
  });
  take();
  section.hidden = false;
  if (at("pairs")) at("pairs").hidden = true; // the same, for who has no script
})();
