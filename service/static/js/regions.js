// Where the regions of a label map are thickest: places for their names.

const GRID = 128; // cells of the long side; a name needs no finer place
const THIN = 3; // cells to the nearest edge; in a thinner region a name would lie over its neighbours
const NEARLY = 0.75; // of the thickest place; among such places the middle one looks best
const MOST = 40;

/** The label map in at most GRID x GRID cells. */
function coarse({ labels, width, height }) {
  const scale = Math.max(1, Math.max(width, height) / GRID);
  const [columns, rows] = [Math.max(1, Math.floor(width / scale)), Math.max(1, Math.floor(height / scale))];
  const cells = new Uint16Array(columns * rows);
  for (let row = 0, at = 0; row < rows; row++) {
    const y = Math.floor(((row + 0.5) * height) / rows);
    for (let column = 0; column < columns; column++, at++) {
      cells[at] = labels[y * width + Math.floor(((column + 0.5) * width) / columns)];
    }
  }
  return { cells, columns, rows };
}

/** Steps from each cell to the nearest one of another label, or to the picture's edge. */
function depths({ cells, columns, rows }) {
  const depth = new Uint16Array(cells.length);
  const visit = (at, column, row, step) => {
    const inside = (next, there) => (there && cells[next] === cells[at] ? depth[next] + 1 : 1);
    const by = inside(at + step, step < 0 ? column > 0 : column < columns - 1);
    const over = inside(at + step * columns, step < 0 ? row > 0 : row < rows - 1);
    return Math.min(by, over);
  };
  for (let at = 0; at < cells.length; at++) depth[at] = visit(at, at % columns, Math.floor(at / columns), -1);
  for (let at = cells.length - 1; at >= 0; at--) {
    depth[at] = Math.min(depth[at], visit(at, at % columns, Math.floor(at / columns), 1));
  }
  return depth;
}

/** The cells of each connected region, as lists. */
function connected({ cells, columns }) {
  const seen = new Uint8Array(cells.length);
  const regions = [];
  for (let start = 0; start < cells.length; start++) {
    if (seen[start] || cells[start] === 0) continue;
    const region = [start];
    seen[start] = 1;
    for (let next = 0; next < region.length; next++) {
      const at = region[next];
      const column = at % columns;
      for (const to of [column > 0 ? at - 1 : -1, column < columns - 1 ? at + 1 : -1, at - columns, at + columns]) {
        if (to < 0 || to >= cells.length || seen[to] || cells[to] !== cells[at]) continue;
        seen[to] = 1;
        region.push(to);
      }
    }
    regions.push(region);
  }
  return regions;
}

/**
 * Places {label, x, y} of names, x and y as shares of the picture: a thick place in the middle of each region
 * that has room, the roomiest first.
 */
export function namePlaces(result) {
  const grid = coarse(result);
  const depth = depths(grid);
  const places = connected(grid).map((region) => {
    const deepest = region.reduce((top, at) => Math.max(top, depth[at]), 0);
    const mean = (of) => region.reduce((sum, at) => sum + of(at), 0) / region.length;
    const [column, row] = [mean((at) => at % grid.columns), mean((at) => Math.floor(at / grid.columns))];
    const away = (at) => (at % grid.columns - column) ** 2 + (Math.floor(at / grid.columns) - row) ** 2;
    const best = region.filter((at) => depth[at] >= NEARLY * deepest).reduce((top, at) => (away(at) < away(top) ? at : top));
    return {
      label: grid.cells[best],
      room: depth[best],
      x: ((best % grid.columns) + 0.5) / grid.columns,
      y: (Math.floor(best / grid.columns) + 0.5) / grid.rows,
    };
  });
  return places.filter(({ room }) => room >= THIN).sort((a, b) => b.room - a.room).slice(0, MOST)
    .map(({ label, x, y }) => ({ label, x, y }));
}
