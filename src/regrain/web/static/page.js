// Keeps the page current. Every word of it is written, and escaped, by the server; nothing here makes
// markup of data. Without this file the page tells the same, as of the time it was loaded.
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const token = document.body.dataset.token;
  const link = find("link");
  if (!link) return; // the page of one package stands still

  // the parts that change

  const waiting = new Map();

  const isInUse = (place) => {
    const chosen = document.getSelection();
    const isChosen = chosen && !chosen.isCollapsed && place.contains(chosen.anchorNode);
    return isChosen || (place !== document.activeElement && place.contains(document.activeElement));
  };

  const put = (name, html) => {
    const place = document.querySelector(`[data-live="${name}"]`);
    if (!place) return;
    if (isInUse(place)) {
      waiting.set(name, html); // whoever reads or selects there keeps it until they go
    } else {
      waiting.delete(name);
      if (place.innerHTML !== html) place.innerHTML = html;
    }
  };

  const putWaiting = () => [...waiting].forEach(([name, html]) => put(name, html));
  document.addEventListener("focusout", () => setTimeout(putWaiting));
  document.addEventListener("selectionchange", () => waiting.size && setTimeout(putWaiting));

  // what is said to who hears the page: only what is news, and not at every moment

  const SPEAK_MS = 10000;
  let said = "", spokenAt = 0, speaking = 0;

  const announce = (text) => {
    if (text === said) return;
    said = text;
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      spokenAt = Date.now();
      find("announced").textContent = said;
    }, Math.max(0, spokenAt + SPEAK_MS - Date.now()));
  };

  // plots: columns of time, bytes a second, ms now, ms before, held

  const POINTS_MAX = 1800;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let columns = [[], [], [], [], []];
  let plots = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const bytes = (value) => {
    let unit = 0;
    while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
    return `${value >= 100 || unit === 0 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[unit]}/s`;
  };
  const ms = (value) => `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(value >= 1 ? 1 : 2)} ms`;

  const shade = (u) => { // stretches in which something held the run back
    const [times, held] = [u.data[0], columns[4]];
    u.ctx.save();
    u.ctx.fillStyle = colour("--shade");
    for (let i = 0; i + 1 < times.length; i += 1) {
      if (!held[i]) continue;
      const from = u.valToPos(times[i], "x", true);
      u.ctx.fillRect(from, u.bbox.top, Math.max(1, u.valToPos(times[i + 1], "x", true) - from), u.bbox.height);
    }
    u.ctx.restore();
  };

  const powers = (u, min, max) => { // ticks of bytes at round numbers of their unit
    let base = 1;
    while (max >= base * 1024) base *= 1024;
    const rough = max / base / 4;
    const scale = 10 ** Math.floor(Math.log10(rough || 1));
    const step = base * scale * ([1, 2, 5, 10].find((one) => one * scale >= rough) || 10);
    const ticks = [];
    for (let tick = 0; tick <= max; tick += step) ticks.push(tick);
    return ticks;
  };

  const draw = (id, series, said, splits) => {
    const place = find(id);
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const data = [columns[0], ...series.map((one) => columns[one.column])];
    if (!data[1].some((value) => value !== null)) return null; // a level alone tells nothing
    place.replaceChildren();
    place.classList.add("drawn"); // it has a size only then
    return new uPlot({
      width: place.clientWidth,
      height: place.clientHeight - 26,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      cursor: { y: false, drag: { x: true, y: false } },
      scales: { y: { range: (u, min, max) => [0, max > 0 ? max * 1.12 : 1] } },
      axes: [
        { ...axis, size: 30, space: 76, values: clock },
        { ...axis, size: 76, values: (u, ticks) => ticks.map(said), ...(splits && { splits: (u, i, min, max) => splits(u, min, max) }) },
      ],
      series: [
        { label: "at", value: (u, at) => (at ? new Date(at * 1e3).toISOString().slice(11, 19) : "-") },
        ...series.map((one) => ({
          label: one.label, stroke: colour(one.colour), width: 2, dash: one.dash, spanGaps: false,
          fill: one.fill && colour(one.fill) + "40", points: { show: false },
          value: (u, value) => (value == null ? "-" : said(value)),
        })),
      ],
      hooks: { drawClear: [shade] },
    }, data, place);
  };

  const clock = (u, ticks) => {
    const span = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
    return ticks.map((at) => {
      const text = new Date(at * 1e3).toISOString();
      return span >= 86400 ? text.slice(5, 10) : text.slice(11, span < 60 ? 19 : 16);
    });
  };

  const redraw = () => {
    if (typeof uPlot === "undefined" || columns[0].length < 2) return;
    plots.forEach((plot) => plot && plot.destroy());
    plots = [
      draw("plot-rate", [{ column: 1, label: "rate", colour: "--accent", fill: "--accent-soft" }], bytes, powers),
      draw("plot-reads", [
        { column: 2, label: "beside the run", colour: "--accent" },
        { column: 3, label: "before it", colour: "--warm", dash: [6, 5] },
      ], ms),
    ];
  };

  const add = (points, isAnew) => {
    if (isAnew) columns = [[], [], [], [], []];
    points.forEach((point) => point.forEach((value, i) => columns[i].push(value)));
    columns = columns.map((column) => column.slice(-POINTS_MAX));
    const [rate, reads] = plots;
    if (!rate || (!reads && columns[2].some((value) => value !== null))) {
      redraw();
    } else {
      rate.setData([columns[0], columns[1]]);
      if (reads) reads.setData([columns[0], columns[2], columns[3]]);
    }
  };

  dark.addEventListener("change", redraw);
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });

  // packages

  const LIST_MS = 5000;
  const form = find("find"), listed = find("listed");
  let query = location.search, asked = 0, listedAt = Date.now(), refreshing = 0, counts = "";

  const list = async (isMoved) => {
    if (!isMoved && isInUse(listed)) { listAgain(); return; }
    const turn = (asked += 1);
    listedAt = Date.now();
    try {
      const answer = await fetch(`/packages${query}`, { headers: { accept: "text/html" } });
      const html = await answer.text();
      if (turn !== asked || !answer.ok) return;
      if (!isMoved && isInUse(listed)) { listAgain(); return; }
      listed.innerHTML = html;
      if (isMoved) {
        history.replaceState(null, "", `/${query}#packages`);
        const caption = listed.querySelector("caption, p");
        said = caption ? caption.textContent : said;
        find("announced").textContent = said;
      }
    } catch {
      // the server is away; the list is asked for again when it is back
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = [...new FormData(form)].filter(([, value]) => value);
    query = fields.length ? `?${new URLSearchParams(fields)}` : "";
    list(true);
  });
  find("kind").addEventListener("change", () => form.requestSubmit());

  listed.addEventListener("click", (event) => {
    const target = event.target.closest(".pager a, p a");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const rel = target.rel;
    query = new URL(target.href).search;
    list(true).then(() => {
      const again = listed.querySelector(`.pager a[rel="${rel}"]`) || listed.querySelector(".scroll");
      if (again) again.focus({ preventScroll: true });
      find("packages").scrollIntoView({ block: "start" });
    });
  });

  const listAgain = () => {
    clearTimeout(refreshing);
    refreshing = setTimeout(() => list(false), Math.max(0, listedAt + LIST_MS - Date.now()));
  };

  // the stream

  let source = null, retrying = 0;

  const show = (words, kind) => {
    if (link.textContent === words) return;
    link.textContent = words;
    link.className = kind;
  };

  const take = (told) => {
    if (told.token !== token) { location.reload(); return; } // the server is another version now
    Object.entries(told.parts || {}).forEach(([name, html]) => put(name, html));
    if (told.points) add(told.points, told.anew);
    if (told.announce) announce(told.announce);
    if (told.title) document.title = told.title;
    if (told.packages) {
      const now = String(told.packages);
      if (counts && counts !== now) listAgain();
      counts = now;
    }
    show(told.trouble ? "store not seen" : "live", told.trouble ? "lost" : "live");
  };

  const open = () => {
    clearTimeout(retrying);
    if (source) source.close();
    source = new EventSource("/events");
    source.addEventListener("update", (event) => take(JSON.parse(event.data)));
    source.onerror = () => {
      show("reconnecting…", "lost");
      if (source.readyState === EventSource.CLOSED) retrying = setTimeout(open, 3000);
    };
  };

  const shut = () => {
    clearTimeout(retrying);
    if (source) source.close();
    source = null;
  };

  // A tab that nobody sees asks for nothing: a browser has six connections to a server.
  document.addEventListener("visibilitychange", () => (document.hidden ? shut() : source || open()));
  addEventListener("pagehide", shut);
  addEventListener("pageshow", (event) => event.persisted && !source && open());
  open();
})();
