// The pages of the KV-cache as a grid: held first, then cached, then free. /metrics tells counts, not
// places, so the grid shows shares; one square may stand for many pages.

import { byId, svg } from "./dom.js";

const MAX_CELLS = 512;
const CELL = 10;   // a square and its gap, in units of the drawing
const SIDE = 8;

// Cells of each state: `perCell` pages in each, at least one cell where there is a page.
export function shares(pages) {
  const all = pages.held + pages.cached + pages.free;
  let perCell = 1;
  while (all / perCell > MAX_CELLS) perCell *= 2;
  const count = Math.ceil(all / perCell);
  const cells = {
    held: Math.max(Math.round(pages.held / perCell), Math.min(1, pages.held)),
    cached: Math.max(Math.round(pages.cached / perCell), Math.min(1, pages.cached)),
  };
  cells.held = Math.min(cells.held, count);
  cells.cached = Math.min(cells.cached, count - cells.held);
  return { ...cells, free: count - cells.held - cells.cached, count, perCell };
}

export function pageCells(root, pages) {
  const { held, cached, count, perCell } = shares(pages);
  const columns = Math.max(8, Math.min(32, Math.ceil(Math.sqrt(count * 2))));
  const rows = Math.ceil(count / columns);
  if (root.childElementCount !== count) {
    root.replaceChildren(...Array.from({ length: count }, (_, i) => svg("rect", {
      x: (i % columns) * CELL, y: Math.floor(i / columns) * CELL, width: SIDE, height: SIDE, rx: 1.5,
    })));
    root.setAttribute("viewBox", `0 0 ${columns * CELL - CELL + SIDE} ${Math.max(1, rows) * CELL - CELL + SIDE}`);
  }
  [...root.children].forEach((cell, i) => {
    const state = i < held ? "held" : i < held + cached ? "cached" : "free";
    if (cell.getAttribute("class") !== state) cell.setAttribute("class", state);
  });
  root.setAttribute("aria-label",
                    `KV pages: ${pages.held} held, ${pages.cached} cached, ${pages.free} free`);
  byId("pages-scale").textContent = perCell === 1 ? "1 square = 1 page" : `1 square = ${perCell} pages`;
}
