"use strict";
// Unpacks the blocks of rows, holds them, and finds among them; the page itself only draws.

const ID = 0, SOURCE = 1, LICENCE = 3, END = 4, REASON = 5, SCORE = 6, DESCRIPTION = 7, CODE = 8, CODE_LENGTH = 10;
const BETWEEN = "\u0001";

const rows = [];
const blocks = []; // { first, count, text, starts }: the searchable text of each block in one piece
let tables = {};
let found = new Uint32Array(0);
let everything = true;
const orders = {};

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function unpack(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const taken = JSON.parse(await new Response(stream).text());
  const starts = new Uint32Array(taken.length + 1);
  const texts = taken.map((row, place) => {
    const about = [tables.sources[row[SOURCE]], tables.licences[row[LICENCE]], tables.reasons[row[REASON]], row[ID]];
    const text = [row[DESCRIPTION], row[CODE], ...about].join("\n").toLowerCase() + BETWEEN;
    starts[place + 1] = starts[place] + text.length;
    return text;
  });
  blocks.push({ first: rows.length, count: taken.length, text: texts.join(""), starts });
  for (const row of taken) rows.push(row);
}

function wordsOf(query) {
  const parts = query.toLowerCase().match(/"[^"]+"|\S+/g) || [];
  // The longest word is the rarest, as a rule: it is looked for first.
  return parts.map((part) => part.replace(/^"|"$/g, "")).filter(Boolean).sort((a, b) => b.length - a.length);
}

function passes(row, query) {
  return (query.end === "" || row[END] === Number(query.end) || tables.fates[row[END]] === query.end)
    && (query.source === "" || row[SOURCE] === Number(query.source))
    && (query.reason === "" || row[REASON] === Number(query.reason));
}

function searchBlock(block, words, query, take) {
  const { text, starts, first, count } = block;
  const [rarest, ...others] = words;
  let place = 0;
  let at = text.indexOf(rarest);
  while (at !== -1) {
    while (starts[place + 1] <= at) place += 1;
    if (passes(rows[first + place], query)) {
      const own = others.length ? text.slice(starts[place], starts[place + 1]) : "";
      if (others.every((word) => own.includes(word))) take(first + place);
    }
    place += 1;
    if (place >= count) return;
    at = text.indexOf(rarest, starts[place]);
  }
}

function search(query) {
  const words = wordsOf(query.words);
  const hits = new Uint32Array(rows.length);
  let size = 0;
  const take = (number) => { hits[size++] = number; };
  if (words.length) {
    for (const block of blocks) searchBlock(block, words, query, take);
  } else {
    for (let number = 0; number < rows.length; number += 1) if (passes(rows[number], query)) take(number);
  }
  return ordered(hits.subarray(0, size), query.order);
}

function ordered(hits, order) {
  if (!order) return hits;
  const known = orders[order] ||= sorted(order);
  const wanted = new Uint8Array(rows.length);
  for (const number of hits) wanted[number] = 1;
  return known.filter((number) => wanted[number]);
}

function sorted(order) {
  const value = {
    score: (row) => (row[SCORE] < 0 ? 2 : row[SCORE]), // rows without a score come last
    long: (row) => -row[CODE_LENGTH],
    short: (row) => row[CODE_LENGTH],
  }[order];
  const values = Float64Array.from(rows, value);
  return Uint32Array.from(rows.keys()).sort((a, b) => values[a] - values[b] || a - b);
}

function brief(number) {
  const row = rows[number];
  const words = row[DESCRIPTION] || row[CODE];
  return { number, end: row[END], source: row[SOURCE], reason: row[REASON], score: row[SCORE], words: words.slice(0, 200) };
}

const answers = {
  tables: async (message) => { tables = message.tables; },
  block: async (message) => {
    await unpack(message.text);
    everything = message.isLast;
    if (everything) for (const name of Object.keys(orders)) delete orders[name];
    postMessage({ kind: "unpacked", rows: rows.length, isLast: message.isLast });
  },
  query: async (message) => {
    const begun = performance.now();
    if (!everything) for (const name of Object.keys(orders)) delete orders[name];
    found = search(message);
    postMessage({ kind: "found", ticket: message.ticket, count: found.length, of: rows.length, ms: performance.now() - begun });
  },
  page: async (message) => {
    const numbers = Array.from(found.subarray(message.from, message.to));
    postMessage({ kind: "page", ticket: message.ticket, from: message.from, rows: numbers.map(brief) });
  },
  row: async (message) => {
    const number = found[message.place];
    if (number !== undefined) postMessage({ kind: "row", place: message.place, number, row: rows[number] });
  },
};

let queue = Promise.resolve();
onmessage = (event) => {
  queue = queue.then(() => answers[event.data.kind](event.data)).catch((error) => postMessage({ kind: "failed", message: String(error) }));
};
