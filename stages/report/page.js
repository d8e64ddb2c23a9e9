"use strict";
// The record browser: draws only the rows that are in sight; finding is the worker's work. No text becomes markup.

const ROW_HEIGHT = 52, PAGE = 100, AHEAD = 6, PAGES_HELD = 60;
const at = (id) => document.getElementById(id);
const tables = JSON.parse(at("tables").textContent);
const list = at("list"), spacer = at("spacer"), detail = at("detail"), status = at("found");
const fields = { words: at("words"), end: at("end"), source: at("source"), reason: at("reason"), order: at("order") };
const state = { count: 0, chosen: -1, pages: new Map(), asked: new Set(), ticket: 0, begun: 0, drawn: "", isNew: false, isWhole: false };
let worker = null;

function element(tag, words, kind) {
  const made = document.createElement(tag);
  if (words !== undefined) made.textContent = words;
  if (kind) made.className = kind;
  return made;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// --- the theme ---------------------------------------------------------------------------------------------------
const THEMES = ["system", "light", "dark"];
function showTheme(name) {
  if (name === THEMES[0]) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  at("theme").textContent = `Theme: ${name}`;
}
at("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || THEMES[0];
  showTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});

// --- asking ------------------------------------------------------------------------------------------------------
function ask() {
  state.begun = performance.now();
  state.isNew = true;
  put();
}

function put() {
  const query = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value]));
  worker.postMessage({ kind: "query", ticket: ++state.ticket, ...query });
}

function onFound(message) {
  if (message.ticket !== state.ticket) return; // an older question
  state.count = message.count;
  state.pages.clear();
  state.asked.clear();
  spacer.style.height = `${state.count * ROW_HEIGHT}px`;
  let took = "";
  if (state.isNew) {
    const end = performance.now();
    performance.measure("search", { start: state.begun, end });
    took = `, found in ${Math.max(1, Math.round(end - state.begun))} ms`;
    state.chosen = -1;
    list.removeAttribute("aria-activedescendant");
    list.scrollTop = 0;
    state.isNew = false;
  }
  status.textContent = `${plural(message.count, "row")} of ${message.of.toLocaleString("en")}${took}`;
  if (state.isWhole) {
    list.removeAttribute("aria-busy");
    document.body.dataset.ready = "true";
  }
  draw();
}

// --- the list ----------------------------------------------------------------------------------------------------
function rowAt(place) {
  const page = Math.floor(place / PAGE);
  const held = state.pages.get(page);
  if (held) return held[place - page * PAGE];
  if (!state.asked.has(page)) {
    state.asked.add(page);
    worker.postMessage({ kind: "page", ticket: state.ticket, from: page * PAGE, to: (page + 1) * PAGE });
  }
  return null;
}

function onPage(message) {
  if (message.ticket !== state.ticket) return;
  if (state.pages.size >= PAGES_HELD) {
    const oldest = state.pages.keys().next().value;
    state.pages.delete(oldest);
    state.asked.delete(oldest);
  }
  state.pages.set(message.from / PAGE, message.rows);
  state.drawn = "";
  draw();
}

function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - AHEAD);
  const last = Math.min(state.count, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + AHEAD);
  const now = `${state.ticket} ${first} ${last} ${state.chosen}`;
  if (now === state.drawn) return;
  state.drawn = now;
  const shown = [];
  for (let place = first; place < last; place += 1) shown.push(option(place, rowAt(place)));
  spacer.replaceChildren(...shown);
}

function option(place, row) {
  const made = element("div", undefined, "option");
  made.id = `row-${place}`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(place === state.chosen));
  made.setAttribute("aria-setsize", String(state.count));
  made.setAttribute("aria-posinset", String(place + 1));
  made.style.transform = `translateY(${place * ROW_HEIGHT}px)`;
  made.dataset.place = String(place);
  if (!row) {
    made.append(element("span", "…", "words"));
    return made;
  }
  const end = row.reason ? `${tables.ends[row.end]}: ${tables.reasons[row.reason]}` : tables.ends[row.end];
  const facts = [tables.sources[row.source], end, row.score < 0 ? "" : `score ${row.score}`].filter(Boolean).join(" · ");
  made.append(element("span", row.words, "words"), element("span", facts, `facts ${tables.fates[row.end]}`));
  return made;
}

function choose(place, keepInSight) {
  if (!state.count) return;
  state.chosen = Math.min(Math.max(place, 0), state.count - 1);
  if (keepInSight) {
    const top = state.chosen * ROW_HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  }
  draw();
  list.setAttribute("aria-activedescendant", `row-${state.chosen}`);
  worker.postMessage({ kind: "row", place: state.chosen });
}

list.addEventListener("scroll", draw, { passive: true });
addEventListener("resize", draw);
list.addEventListener("click", (event) => {
  const clicked = event.target.closest(".option");
  if (clicked) choose(Number(clicked.dataset.place), false);
});
list.addEventListener("keydown", (event) => {
  const many = Math.max(1, Math.floor(list.clientHeight / ROW_HEIGHT) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: many, PageUp: -many, Home: -Infinity, End: Infinity };
  if (event.key === "Enter" && state.chosen >= 0) detail.focus();
  else if (event.key in steps) choose(state.chosen + steps[event.key], true);
  else return;
  event.preventDefault();
});

// --- one record --------------------------------------------------------------------------------------------------
function onRow({ place, row }) {
  if (place !== state.chosen) return;
  const [id, source, kind, licence, end, reason, score, description, code, descriptionLength, codeLength, more] = row;
  const ended = reason ? `${tables.ends[end]}: ${tables.reasons[reason]}` : tables.ends[end];
  const facts = [
    ["id", `${id}…`], ["source", tables.sources[source]], ["kind", tables.kinds[kind]], ["licence", tables.licences[licence]],
    ["score", score < 0 ? "none" : String(score)],
    ...Object.entries(more.origin || {}).map(([name, value]) => [`origin: ${name}`, value]),
    ["render", more.render], ["cost", costOf(more.cost)],
  ].filter(([, value]) => value);
  detail.replaceChildren(
    element("h3", ended, tables.fates[end]),
    ...(more.error ? [element("p", more.error, "error")] : []),
    ...textOf("Description", description, descriptionLength, "text", more.author ? `written by ${more.author}` : ""),
    ...(more.before ? textOf("The description that the source brought", more.before, more.before.length, "text", "") : []),
    ...textOf(tables.kinds[kind] === "code" ? "Code" : "Text", code, codeLength, "code", ""),
    ...listOf("Findings", (more.issues || []).map(([check, severity, message]) => `${severity} · ${check}: ${message}`)),
    ...listOf("Repairs", more.fixes || []),
    ...(more.twin ? twinOf(more.twin) : []),
    element("h4", "How it came to be"), lineageOf(more, ended), definitions(facts),
    element("p", "The whole history, each step checked against the files:", "hint"),
    element("pre", `python -m schema trace ${id} ${tables.files.join(" ")}`, "command"),
  );
  detail.scrollTop = 0;
  mark(detail);
}

function textOf(title, words, length, kind, note) {
  const cut = length > words.length ? ` (the first ${words.length.toLocaleString("en")} of ${length.toLocaleString("en")} characters)` : "";
  const block = element("pre", undefined, kind);
  if (kind === "code") colour(block, words);
  else block.textContent = words || "(empty)";
  block.tabIndex = 0;
  return [element("h4", title + cut + (note ? ` · ${note}` : "")), block];
}

function listOf(title, lines) {
  if (!lines.length) return [];
  const made = element("ul");
  made.append(...lines.map((line) => element("li", line)));
  return [element("h4", title), made];
}

function twinOf([id, field, similarity]) {
  const button = element("button", "Show the row that stays");
  button.type = "button";
  button.addEventListener("click", () => { fields.words.value = id; for (const name of ["end", "source", "reason"]) fields[name].value = ""; ask(); });
  return [element("h4", `Says the same as ${id}… (${field}, similarity ${similarity})`), button];
}

function lineageOf(more, ended) {
  const made = element("ol", undefined, "lineage");
  for (const [step, request] of more.lineage || []) {
    const [name, params] = tables.steps[step].split("\n");
    const item = element("li");
    item.append(element("b", name));
    if (request) item.append(element("span", ` LLM request ${request}…`));
    if (params !== "{}") item.append(element("code", params));
    made.append(item);
  }
  made.append(element("li", ended, "end"));
  return made;
}

function costOf(cost) {
  if (!cost) return "";
  const usd = cost.usd === undefined ? "unknown price" : `$${cost.usd}`;
  return `${usd}, ${plural(cost.calls, "call")}, ${cost.input_tokens} tokens read, ${cost.output_tokens} written`;
}

function definitions(pairs) {
  const made = element("dl");
  for (const [name, value] of pairs) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    made.append(pair);
  }
  return made;
}

const PYTHON = /(#[^\n]*)|("""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\b(False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b|\b(\d[\w.]*)\b/g;
const KINDS = [, "comment", "string", "keyword", "digits"];
function colour(block, words) {
  let done = 0;
  for (const match of words.matchAll(PYTHON)) {
    const kind = KINDS[match.findIndex((part, place) => place > 0 && part !== undefined)];
    block.append(words.slice(done, match.index), element("span", match[0], kind));
    done = match.index + match[0].length;
  }
  block.append(words.slice(done));
}

function mark(place) {
  const wanted = (fields.words.value.toLowerCase().match(/"[^"]+"|\S+/g) || []).map((word) => word.replace(/^"|"$/g, "")).filter(Boolean);
  if (!wanted.length || !window.CSS || !CSS.highlights) return;
  const ranges = [];
  for (const block of place.querySelectorAll("pre.text, pre.code")) {
    const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.data.toLowerCase();
      for (const word of wanted) {
        for (let from = text.indexOf(word); from !== -1 && ranges.length < 500; from = text.indexOf(word, from + word.length)) {
          const range = new Range();
          range.setStart(walker.currentNode, from);
          range.setEnd(walker.currentNode, Math.min(from + word.length, walker.currentNode.length));
          ranges.push(range);
        }
      }
    }
  }
  CSS.highlights.set("hit", new Highlight(...ranges));
}

// --- the start ---------------------------------------------------------------------------------------------------
function fill(select, names, values) {
  names.forEach((name, place) => {
    if (name) select.append(new Option(name, values ? values[place] : String(place)));
  });
}

function start() {
  const blocks = [...document.querySelectorAll("script.block")];
  fill(fields.end, ["kept, wherever", "rejected, wherever"], ["kept", "rejected"]);
  fill(fields.end, tables.ends);
  fill(fields.source, tables.sources);
  fill(fields.reason, tables.reasons);
  if (!blocks.length) {
    status.textContent = "There are no rows.";
    list.removeAttribute("aria-busy");
    return;
  }
  if (typeof DecompressionStream === "undefined") {
    status.textContent = "This browser can not unpack the rows; one of the year 2023 or later can.";
    return;
  }
  worker = new Worker(URL.createObjectURL(new Blob([at("worker").textContent], { type: "text/javascript" })));
  const answers = { found: onFound, page: onPage, row: onRow, unpacked: onUnpacked, failed: (message) => console.error(message.message) };
  worker.onmessage = (event) => answers[event.data.kind](event.data);
  worker.postMessage({ kind: "tables", tables });
  blocks.forEach((block, place) => {
    worker.postMessage({ kind: "block", text: block.textContent, isLast: place === blocks.length - 1 });
    block.remove();
  });
  let wait = 0;
  fields.words.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(ask, 30); });
  for (const name of ["end", "source", "reason", "order"]) fields[name].addEventListener("change", ask);
  at("query").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
}

function onUnpacked(message) {
  state.isWhole = message.isLast;
  if (!message.isLast) status.textContent = `Unpacking: ${plural(message.rows, "row")} …`;
  if (state.ticket && !message.isLast) return;
  // The rest has come: the same question again, and whoever reads stays where they are.
  put();
}

// Not before the first picture of the page: unpacking can wait, reading can not.
requestAnimationFrame(() => setTimeout(start));
