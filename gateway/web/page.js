"use strict";
// Every text from the gateway goes through textContent: device names and broker errors are other people's words.
(() => {
  const id = (name) => document.getElementById(name);
  const most = 60; // rows drawn; the filter reaches the rest
  const history = []; // {t, polled, acked, kept} of the last two minutes
  const seen = new Map(); // device name -> what earlier snapshots said of it
  let last = null, answered = 0;

  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const whole = (n) => Math.round(n).toLocaleString("en-US");
  const cell = (cls, label) => {
    const td = document.createElement("td");
    if (cls) td.className = cls;
    if (label) td.dataset.label = label;
    return td;
  };
  const part = (parent, tag, cls) => {
    const node = document.createElement(tag);
    node.className = cls;
    parent.append(node);
    return node;
  };

  function span(s) {
    if (!(s >= 0)) return "–";
    if (s < 10) return s.toFixed(1) + " s";
    if (s < 60) return Math.floor(s) + " s";
    if (s < 3600) return Math.floor(s / 60) + " m " + Math.floor(s % 60) + " s";
    if (s < 36000) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " m";
    if (s < 259200) return Math.floor(s / 3600) + " h";
    return Math.floor(s / 86400) + " d";
  }

  // brief is span for what takes milliseconds.
  const brief = (s) => s >= 1 ? span(s) : s > 0 ? (s * 1000 < 10 ? (s * 1000).toFixed(1) : Math.round(s * 1000)) + " ms" : "–";

  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
  }

  const perSecond = (n) => n >= 100 ? whole(n) : n.toFixed(n >= 9.95 || n === 0 ? 0 : 1);
  const known = (time) => time && !time.startsWith("0001");
  const ago = (now, time) => known(time) ? (now - Date.parse(time)) / 1000 : NaN;
  const total = (drops) => Object.values(drops || {}).reduce((a, b) => a + b, 0);
  const sum = (list, of) => list.reduce((a, x) => a + of(x), 0);

  // remember keeps, per device, ten seconds of counts for its rate.
  function remember(d, now) {
    let m = seen.get(d.name);
    if (!m) seen.set(d.name, m = { counts: [], missed: 0 });
    m.counts.push([now, d.polled]);
    while (m.counts.length > 2 && now - m.counts[0][0] > 10000) m.counts.shift();
    m.missed = sum(d.groups || [], (g) => g.overruns);
    return m;
  }

  const rate = (counts) => {
    const [a, b] = [counts[0], counts[counts.length - 1]];
    return b[0] > a[0] ? Math.max(0, b[1] - a[1]) / (b[0] - a[0]) * 1000 : NaN;
  };

  // states is what the gateway says of its parts, by kind and name, the loudest first.
  function statesOf(s) {
    const by = new Map();
    for (const x of s.states || []) {
      const key = x.kind + "\u0000" + x.name;
      if (!by.has(key)) by.set(key, x);
    }
    return by;
  }

  // rows keeps one <tr> per key in the order given, so that nothing flickers and a selection survives.
  function rows(body, keys, make, fill) {
    const old = new Map([...body.children].map((tr) => [tr.key, tr]));
    keys.forEach((key, i) => {
      let tr = old.get(key);
      if (!tr) { tr = make(); tr.key = key; }
      old.delete(key);
      if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null);
      fill(tr.parts, i);
    });
    for (const tr of old.values()) tr.remove();
  }

  function makeDevice() {
    const tr = document.createElement("tr"), p = {};
    const state = cell(), name = cell();
    p.state = part(state, "span", "state");
    p.name = part(name, "span", "name");
    p.where = part(name, "span", "sub");
    p.notes = part(name, "span", "sub learned");
    p.learned = part(name, "span", "sub learned");
    p.why = part(name, "span", "why");
    p.since = cell("time", "Since");
    [["poll", "Last poll"], ["rate", "Readings/s"], ["failed", "Failed polls"], ["missed", "Missed polls"]]
      .forEach(([key, label]) => p[key] = cell("n", label));
    tr.append(state, name, p.since, p.poll, p.rate, p.failed, p.missed);
    tr.parts = p;
    return tr;
  }

  function drawDevices(s, now) {
    const rank = { down: 0, "partly bad": 1, contested: 2, "on spare path": 3, late: 4, ok: 5 };
    const states = statesOf(s), words = id("filter").value.toLowerCase();
    let list = s.devices.map((d, i) => {
      const m = remember(d, now), x = states.get("device\u0000" + d.name);
      return { d, i, m, state: d.state, why: x ? x.reason + (x.do ? "; " + x.do : "") : "" };
    });
    const live = list.filter((x) => x.d.up).length;
    id("filter").hidden = list.length <= 12;
    if (words) list = list.filter((x) => (x.d.name + " " + x.why + " " + x.d.url).toLowerCase().includes(words));
    list.sort((a, b) => rank[a.state] - rank[b.state] || a.i - b.i);
    set(id("devices-more"), list.length > most ? "and " + whole(list.length - most) + " more; the filter finds them" : "");
    list.length = Math.min(list.length, most);
    rows(id("devices").tBodies[0], list.map((x) => x.d.name), makeDevice, (p, i) => {
      const { d, m, state, why } = list[i], groups = d.groups || [];
      const failed = sum(groups, (g) => g.failed), age = Math.min(...groups.map((g) => ago(now, g.last_at)));
      p.state.dataset.is = state === "ok" ? "live" : state === "down" ? "down" : "late";
      set(p.state, state);
      set(p.name, d.name);
      set(p.where, d.driver + "  " + d.url + (d.path ? "  path in use: " + d.path + ", spare: " + d.spare_paths.join(", ") : "") + (Math.abs(d.clock_skew_seconds || 0) >= 1 ? "  its clock is " + span(Math.abs(d.clock_skew_seconds)) + (d.clock_skew_seconds > 0 ? " ahead" : " behind") : ""));
      set(p.notes, d.notes ? d.notes.join("\n") : "");
      set(p.learned, d.learned ? "learned:\n" + d.learned.join("\n") : "");
      set(p.why, why);
      set(p.since, span(ago(now, d.since)));
      set(p.poll, age >= 0 ? (age < 2 ? "now" : span(age) + " ago") : "–");
      set(p.rate, isNaN(rate(m.counts)) ? "–" : perSecond(rate(m.counts)));
      set(p.failed, whole(failed));
      set(p.missed, whole(m.missed));
      p.failed.classList.toggle("some", failed > 0);
      p.missed.classList.toggle("some", m.missed > 0);
    });
    return live;
  }

  function makeDestination() {
    const tr = document.createElement("tr"), p = {};
    const state = cell(), name = cell();
    p.state = part(state, "span", "state");
    p.name = part(name, "span", "name");
    p.where = part(name, "span", "sub");
    p.why = part(name, "span", "why");
    p.since = cell("time", "Since");
    [["backlog", "Backlog"], ["oldest", "Oldest"], ["flight", "In flight"], ["rate", "Messages/s"], ["latency", "Acknowledged in"], ["resent", "Sent again"]]
      .forEach(([key, label]) => p[key] = cell("n", label));
    tr.append(state, name, p.since, p.backlog, p.oldest, p.flight, p.rate, p.latency, p.resent);
    tr.parts = p;
    return tr;
  }

  // breakers says what a destination that takes messages does not take, a line for each.
  function breakers(d, now) {
    const lines = (d.breakers || []).map((x) => x.topic + ": breaker " + x.state + " for " + span(ago(now, x.since)) + ", " + whole(x.held_back) +
      " records held back, " + (ago(now, x.next_try) < 0 ? "next try in " + span(-ago(now, x.next_try)) : "trying again") + (x.reason ? "; " + x.reason : ""));
    return lines.slice(0, 10).join("\n") + (lines.length > 10 ? "\nand " + (lines.length - 10) + " more; the snapshot has all" : "");
  }

  // absent says what is kept for destinations that are not in the config.
  function absent(list) {
    return (list || []).map((a) => a.name + " is not in the config and gets nothing new; " + whole(a.readings) + " readings in " + whole(a.records) +
      " records are kept for it. millrace buffer forget " + a.name + " gives them up.").join("\n");
  }

  function drawDestinations(s, now) {
    rows(id("destinations").tBodies[0], s.destinations.map((d) => d.name), makeDestination, (p, i) => {
      const d = s.destinations[i], up = d.state === "connected";
      const m = remember({ name: "\u0000" + d.name, polled: d.acked }, now);
      p.state.dataset.is = up ? "live" : "down";
      set(p.state, d.state);
      set(p.name, d.name);
      set(p.where, d.url);
      set(p.why, up ? breakers(d, now) : d.last_error);
      set(p.since, span(ago(now, d.since)));
      set(p.backlog, whole(d.backlog_readings));
      set(p.oldest, d.backlog_readings ? span(d.oldest_age_seconds) : "–");
      set(p.flight, whole(d.in_flight));
      set(p.rate, isNaN(rate(m.counts)) ? "–" : perSecond(rate(m.counts)));
      set(p.latency, brief(d.ack_latency_seconds));
      p.latency.title = "longest of this session: " + brief(d.ack_latency_max_seconds);
      set(p.resent, whole(d.resent));
    });
    set(id("absent"), absent(s.absent));
  }

  function drawFacts(dl, facts) {
    facts.forEach(([name, value], i) => {
      let div = dl.children[i];
      if (!div) { div = part(dl, "div", ""); part(div, "dt", ""); part(div, "dd", ""); }
      set(div.children[0], name);
      set(div.children[1], value);
    });
    while (dl.children.length > facts.length) dl.lastChild.remove();
  }

  function drawBuffer(b) {
    const used = b.max_bytes > 0 ? Math.min(1, b.bytes / b.max_bytes) : 0;
    const gauge = id("gauge");
    gauge.firstElementChild.style.width = (used * 100).toFixed(2) + "%";
    gauge.classList.toggle("high", used > .8);
    gauge.setAttribute("aria-valuenow", Math.round(used * 100));
    set(id("buffer-path"), b.path);
    const facts = [["On disk", bytes(b.bytes) + " of " + bytes(b.max_bytes)]];
    if (b.outage_hours != null) facts.push(["An outage may last", span(b.outage_hours * 3600)]);
    facts.push(["Segments", whole(b.segments)], ["In memory", bytes(b.tail_bytes)], ["Commits", whole(b.commits)],
      ["Written", bytes(b.bytes_written)], ["Next sequence", whole(b.next_seq)], ["Health", b.health]);
    if (b.corrupt) facts.push(["Damaged, set aside", whole(b.corrupt)]);
    drawFacts(id("buffer"), facts);
  }

  const labels = ["Polled", "Suppressed", "Delivered", "Buffered", "In flight", "Dropped"];
  const signs = ["", "=", "+", "+", "+", "+"];

  function makeAccount() {
    const tr = document.createElement("tr"), p = { name: cell("name"), numbers: [], check: cell("check") };
    labels.forEach((label, i) => {
      const td = cell("n", label);
      if (signs[i]) td.dataset.op = signs[i];
      p.numbers.push(td);
    });
    tr.append(p.name, ...p.numbers, p.check);
    tr.parts = p;
    return tr;
  }

  const blank = () => ({ polled: 0, suppressed: 0, before: 0, delivered: 0, buffered: 0, in_flight: 0, dropped: 0, off: 0, causes: {} });

  function add(sumOf, d, a) {
    const dropped = total(a.dropped);
    sumOf.polled += d.polled;
    sumOf.suppressed += d.suppressed;
    sumOf.before += a.before;
    sumOf.delivered += a.delivered;
    sumOf.buffered += a.buffered;
    sumOf.in_flight += a.in_flight;
    sumOf.dropped += dropped;
    sumOf.off += d.polled - d.suppressed - a.before - a.delivered - a.buffered - a.in_flight - dropped;
    for (const [cause, n] of Object.entries(a.dropped || {})) sumOf.causes[cause] = (sumOf.causes[cause] || 0) + n;
  }

  const offSince = new Map(); // ledger row -> since when it does not add up; a moment is a poll under way

  function fillAccount(p, name, a, now) {
    set(p.name, name);
    [a.polled, a.suppressed, a.delivered, a.buffered, a.in_flight, a.dropped].forEach((n, i) => set(p.numbers[i], whole(n)));
    p.numbers[5].classList.toggle("dropped", a.dropped > 0);
    const wrong = isOff(name, a, now);
    p.check.classList.toggle("off", wrong);
    const before = a.before ? "less " + whole(a.before) + " from before it was added; " : "";
    set(p.check, before + (wrong ? "off by " + whole(a.off) : "adds up"));
  }

  function isOff(name, a, now) {
    if (a.off === 0) offSince.delete(name);
    else if (!offSince.has(name)) offSince.set(name, now);
    return a.off !== 0 && now - offSince.get(name) > 5000;
  }

  function drawLedger(s, now) {
    const to = new Map(), perDevice = [];
    for (const d of s.devices) {
      for (const a of d.accounts || []) {
        if (!to.has(a.destination)) to.set(a.destination, blank());
        add(to.get(a.destination), d, a);
        const own = blank();
        add(own, d, a);
        perDevice.push([d.accounts.length > 1 ? d.name + " to " + a.destination : d.name, own]);
      }
    }
    const list = [...to];
    rows(id("ledger").tBodies[0], list.map(([name]) => name), makeAccount, (p, i) => fillAccount(p, list[i][0], list[i][1], now));
    const wrong = list.filter(([name, a]) => isOff(name, a, now));
    set(id("ledger-word"), wrong.length ? "Readings are unaccounted for. Please report this." : "Every reading is accounted for.");
    const drops = list.flatMap(([name, a]) => Object.entries(a.causes).filter(([, n]) => n > 0)
      .map(([cause, n]) => whole(n) + " for " + name + ": " + cause.replaceAll("_", " ")));
    set(id("drops"), drops.length ? "Dropped " + drops.join("; ") + "." : "");
    if (!id("accounts").open) return;
    perDevice.length = Math.min(perDevice.length, most);
    rows(id("ledger-devices").tBodies[0], perDevice.map(([name]) => "device " + name), makeAccount,
      (p, i) => fillAccount(p, perDevice[i][0], perDevice[i][1], now));
  }

  // spark draws the last two minutes as an area from zero.
  function spark(svg, values) {
    const top = Math.max(...values, 1e-9), n = 120;
    const x = (i) => (n - (values.length - 1 - i)).toFixed(1), y = (v) => (26 - v / top * 23).toFixed(1);
    const line = values.length > 1 ? "M" + values.map((v, i) => x(i) + " " + y(v)).join("L") : "";
    svg.children[0].setAttribute("d", line && line + "V28H" + x(0) + "Z");
    svg.children[1].setAttribute("d", line);
  }

  function drawConfig(c, now) {
    set(id("config"), c.file ? c.file + ", config " + c.hash + ", in force for " + span(ago(now, c.since)) + (c.reloads ? ", reloaded " + whole(c.reloads) + "×" : "") : "");
    const lines = c.problem ? c.problem.split("\n") : [];
    set(id("refused"), lines.length ? "Reload refused " + span(ago(now, c.problem_at)) + " ago; nothing was changed:\n" +
      lines.slice(0, 10).join("\n") + (lines.length > 10 ? "\nand " + (lines.length - 10) + " more; millrace check shows all" : "") : "");
  }

  function drawFlow(s, now, live) {
    const kept = Math.max(0, ...s.destinations.map((d) => d.backlog_readings));
    history.push({ t: now, polled: sum(s.devices, (d) => d.polled), acked: sum(s.destinations, (d) => d.acked), kept });
    while (history.length > 121) history.shift();
    const rates = (of) => history.slice(1).map((h, i) => Math.max(0, of(h) - of(history[i])) / Math.max(1, h.t - history[i].t) * 1000);
    const polled = rates((h) => h.polled), acked = rates((h) => h.acked);
    const mean = (list) => list.length ? sum(list.slice(-5), (v) => v) / Math.min(5, list.length) : NaN;
    const up = s.destinations.filter((d) => d.state === "connected").length;
    set(id("flow-live"), live + " of " + s.devices.length + " live");
    set(id("flow-up"), up + " of " + s.destinations.length + " connected");
    set(id("flow-kept"), whole(kept) + " kept");
    set(id("flow-rate"), polled.length ? perSecond(mean(polled)) + " readings/s" : "");
    set(id("flow-out"), acked.length ? perSecond(mean(acked)) + " messages/s" : "");
    set(id("flow-outage"), s.buffer.outage_hours != null ? "an outage may last " + span(s.buffer.outage_hours * 3600) : bytes(s.buffer.bytes) + " on disk");
    id("flow-live").parentNode.classList.toggle("warn", live < s.devices.length);
    id("flow-up").parentNode.classList.toggle("warn", up < s.destinations.length);
    spark(id("spark-rate"), polled);
    spark(id("spark-kept"), history.map((h) => h.kept));
    spark(id("spark-out"), acked);
  }

  function draw(s) {
    const now = Date.parse(s.now);
    s.devices = s.devices || [];
    s.destinations = s.destinations || [];
    document.body.dataset.level = s.summary.level;
    set(id("sentence"), s.summary.text);
    set(id("gateway"), s.gateway);
    set(id("facts"), "millrace " + s.version + ", running for " + span(ago(now, s.started)) + ", epoch " + s.epoch);
    document.title = (s.summary.level === "ok" ? "" : "\u25b2 ") + s.gateway + ": " + s.summary.text;
    const more = (s.states || []).slice(1);
    set(id("states"), more.slice(0, 10).map((x) => x.text).join("\n") + (more.length > 10 ? "\nand " + whole(more.length - 10) + " more; /readyz has all" : ""));
    const live = drawDevices(s, now);
    drawDestinations(s, now);
    drawBuffer(s.buffer);
    drawLedger(s, now);
    drawFlow(s, now, live);
    drawConfig(s.config, now);
    const p = s.process;
    set(id("process"), bytes(p.rss_bytes) + " of memory, " + span(p.cpu_seconds) + " of processor time, " + p.goroutines + " goroutines");
  }

  function stale(err) {
    const silent = answered ? (Date.now() - answered) / 1000 : 0;
    document.body.dataset.stale = "";
    document.body.dataset.level = "bad";
    set(id("sentence"), "The gateway's page has not answered" + (answered ? " for " + span(silent) + "; what stands below is old." : " yet.") );
    document.title = "\u25b2 no answer";
    console.warn(err);
  }

  async function turn() {
    const began = performance.now();
    try {
      const answer = await fetch("/api/v1/snapshot", { signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error("status " + answer.status);
      last = await answer.json();
      answered = Date.now();
      delete document.body.dataset.stale;
      draw(last);
    } catch (err) {
      stale(err);
    }
    // A large plant or a slow link is asked less often, so that looking never costs more than a fifth.
    setTimeout(turn, Math.max(1000, 4 * (performance.now() - began)));
  }

  id("filter").addEventListener("input", () => last && drawDevices(last, Date.parse(last.now)));
  id("accounts").addEventListener("toggle", () => last && drawLedger(last, Date.parse(last.now)));
  turn();
})();
