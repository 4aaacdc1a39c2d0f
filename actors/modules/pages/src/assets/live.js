// Callhome portal: live updates and keys. Every page works without this file.
(() => {
  'use strict';
  const body = document.body;
  const $ = (sel, from = document) => from.querySelector(sel);
  const all = (sel, from = document) => [...from.querySelectorAll(sel)];
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;

  // ---- relative times: the server writes them, we only keep them true
  let skew = 0; // server's clock minus ours, in ms; set by each event
  const span = (s) => {
    const two = (n) => String(n).padStart(2, '0');
    if (s < 60) return Math.floor(s) + ' s';
    if (s < 3600) return Math.floor(s / 60) + ' min';
    if (s < 86400) return Math.floor(s / 3600) + ' h ' + two(Math.floor((s % 3600) / 60)) + ' min';
    const d = Math.floor(s / 86400);
    return d + (d === 1 ? ' day' : ' days');
  };
  const retime = () => all('time[data-rel]').forEach((t) => {
    const s = (Date.now() + skew - Date.parse(t.dateTime)) / 1000;
    const word = { ago: span(Math.max(s, 0)) + ' ago', for: span(Math.max(s, 0)), in: 'in ' + span(Math.max(-s, 0)) }[t.dataset.rel];
    const at = t.firstElementChild;
    if (at && at.textContent !== word) at.textContent = word;
  });

  // ---- server-sent events: the server sends the same fragments it renders
  // event "part": <tag id="…">…</tag>, replaces the element of that id
  // event "new":  JSON {count, words}, offered above the list, never inserted under the reader
  // event "beat": JSON {now, title}, every 10 s at most
  // the cell is looked up each time: it is replaced with the line it stands in
  const cell = () => $('#live');
  let last = Date.now(), stream = null, wait = 1000;
  // a row that only grew older is not shown as changed
  const timeless = (row) => {
    const copy = row.cloneNode(true);
    copy.querySelectorAll('time').forEach((time) => time.remove());
    return copy.textContent;
  };
  const put = (html) => {
    const parts = document.createElement('template');
    parts.innerHTML = html;
    for (const fresh of [...parts.content.children]) {
      const old = fresh.id && document.getElementById(fresh.id);
      if (!old || old.contains(document.activeElement) || old.outerHTML === fresh.outerHTML) continue;
      const box = $('input[type="checkbox"]', old), mark = $('input[type="checkbox"]', fresh);
      if (box && mark) mark.checked = box.checked;
      if (!calm && fresh.hasAttribute('data-row') && timeless(fresh) !== timeless(old)) fresh.classList.add('fresh');
      old.replaceWith(fresh);
    }
  };
  const alive = (now) => {
    last = Date.now();
    wait = 1000;
    body.classList.remove('stale');
    if (!now) return;
    skew = Date.parse(now) - last;
    const t = cell() && $('time', cell());
    if (t) { t.dateTime = now; t.textContent = now.slice(11, 19) + ' UTC'; }
  };
  const stale = () => {
    const live = cell();
    if (!live || body.classList.contains('stale') || Date.now() - last < 30000) return;
    const at = new Date(last + skew).toISOString();
    body.classList.add('stale');
    live.setAttribute('role', 'status');
    live.replaceChildren();
    const b = document.createElement('b');
    b.textContent = 'Not live. ';
    const t = document.createElement('time');
    t.dateTime = at;
    t.textContent = at.slice(11, 19) + ' UTC';
    live.append(b, 'All figures are as of ', t, '. The page asks again by itself.');
  };
  const listen = () => {
    stream = new EventSource(body.dataset.events);
    stream.addEventListener('part', (e) => { alive(); put(e.data); });
    stream.addEventListener('beat', (e) => {
      if (body.classList.contains('stale')) return location.reload(); // whole picture again
      const beat = JSON.parse(e.data);
      alive(beat.now);
      if (beat.title) document.title = beat.title; // "4 need attention, Overview"
    });
    stream.addEventListener('new', (e) => {
      alive();
      const box = $('#new'), { words } = JSON.parse(e.data);
      if (!box) return;
      const a = document.createElement('a');
      a.href = location.href;
      a.className = 'btn';
      a.textContent = words; // "3 new alarms, show"
      a.addEventListener('click', (click) => { click.preventDefault(); location.reload(); });
      box.replaceChildren(a);
    });
    stream.onerror = () => {
      stream.close();
      setTimeout(listen, wait * (0.5 + Math.random()));
      wait = Math.min(wait * 2, 30000);
    };
  };
  if (body.dataset.events && location.protocol !== 'file:') {
    listen();
    // A page that is left lets its connection go: a browser has six for one place.
    addEventListener('pagehide', () => stream.close());
    addEventListener('pageshow', (e) => { if (e.persisted) location.reload(); });
    setInterval(() => { if (!body.classList.contains('stale')) retime(); stale(); }, 5000);
    document.addEventListener('visibilitychange', () => { if (!document.hidden) retime(); });
  }

  // ---- keys: plain links and buttons carry data-g (after g) or data-key; rows carry data-row
  const link = (row) => $('th a, a', row);
  const rows = () => all('[data-row]').filter((r) => r.offsetParent && link(r));
  const step = (by) => {
    const list = rows(), here = list.findIndex((r) => r.contains(document.activeElement));
    const next = list[here < 0 ? (by > 0 ? 0 : list.length - 1) : here + by];
    if (next) { link(next).focus(); next.scrollIntoView({ block: 'nearest' }); }
  };
  const press = (key) => {
    const el = all('[data-key="' + key + '"]').find((x) => x.offsetParent);
    if (!el) return false;
    if (el.tagName === 'A') el.click();
    else if (el.form && $('textarea, input[name="comment"]', el.form)) $('textarea, input[name="comment"]', el.form).focus();
    else el.focus(); // a key never acts on its own: it brings you to the button
    return true;
  };
  let g = 0;
  document.addEventListener('keydown', (e) => {
    if (body.dataset.keys !== 'on' || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.target.closest('input:not([type="checkbox"]):not([type="radio"]), textarea, select')) {
      if (e.key === 'Escape') e.target.blur();
      return;
    }
    const key = e.key;
    let done = true;
    if (Date.now() - g < 1200 && $('[data-g="' + key + '"]')) { g = 0; $('[data-g="' + key + '"]').click(); }
    else if (key === 'g') g = Date.now();
    else if (key === '/') $('#q')?.focus();
    else if (key === '?') $('#keys')?.togglePopover();
    else if (key === 'j') step(1);
    else if (key === 'k') step(-1);
    else if (key === 'x') document.activeElement.closest('[data-row]')?.querySelector('input[type="checkbox"]')?.click();
    else done = /^[astu]$/.test(key) && press(key);
    if (done) e.preventDefault();
  });
  all('[data-print]').forEach((b) => b.addEventListener('click', () => print()));
})();
