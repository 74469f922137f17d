// Drawing: elements, and the picture of a host's links. Text only ever becomes
// text: what comes from etcd may be anything.
'use strict';

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter(c => c !== undefined && c !== null && c !== ''));
  return node;
}

const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

const list = values => values || [];
const byName = new Intl.Collator('en', {numeric: true}).compare; // 10.5.9.0 before 10.5.10.0

// kinds of links, the worst first; every one has a mark and a word beside its
// colour.
const kinds = {
  silent: {mark: '✕', word: 'silent'},
  skipped: {mark: '⊘', word: 'skipped'},
  lossy: {mark: '▲', word: 'losing packets'},
  unknown: {mark: '?', word: 'not measured yet'},
  fine: {mark: '●', word: 'fine'},
};
const order = Object.keys(kinds);

function millis(nanoseconds) {
  const ms = nanoseconds / 1e6;
  return (ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)) + ' ms';
}

// link is what is known of the way to a peer.
function link(peer) {
  const reach = peer.Reach;
  const l = {peer, subnet: peer.Subnet, host: peer.PublicIP, loss: 0, rtt: 0};
  if (peer.Skipped) return {...l, kind: 'skipped', text: 'skipped', why: peer.Skipped};
  if (!reach || !reach.Sent) return {...l, kind: 'unknown', text: 'not measured'};
  l.loss = reach.Lost / reach.Sent;
  l.rtt = reach.RTT;
  if (reach.Lost === reach.Sent) return {...l, kind: 'silent', text: 'no answer'};
  if (reach.Lost) return {...l, kind: 'lossy', text: Math.round(100 * l.loss) + ' % lost'};
  return {...l, kind: 'fine', text: millis(l.rtt)};
}

// worse compares two links; round-trips of about one length count as equal, so
// that hosts do not change places all the time.
function worse(a, b) {
  const step = l => l.rtt > 0 ? Math.floor(Math.log2(l.rtt)) : 0;
  return order.indexOf(a.kind) - order.indexOf(b.kind) || b.loss - a.loss || step(b) - step(a) || byName(a.subnet, b.subnet);
}

function describe(l) {
  const parts = [l.host, l.subnet, kinds[l.kind].word];
  if (l.why) parts.push(l.why);
  if (l.rtt) parts.push(millis(l.rtt));
  if (l.loss) parts.push(Math.round(100 * l.loss) + ' % lost');
  return parts.join(', ');
}

function tally(links) {
  return order.map(kind => ({kind, count: links.filter(l => l.kind === kind).length})).filter(t => t.count);
}

const width = 1120;
const fewest = 14; // peers, up to which each has a card

// picture draws this host and its links: cards on two arcs, or a cell each.
function picture(self, links, matches) {
  return links.length <= fewest ? arcs(self, links, matches) : cells(links, matches);
}

function frame(height, links, ...children) {
  const label = links.length + ' other hosts: ' + tally(links).map(t => t.count + ' ' + kinds[t.kind].word).join(', ');
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label}, ...children);
}

function arcs(self, links, matches) {
  const all = [...links].sort((a, b) => byName(a.subnet, b.subnet));
  const left = all.length === 1 ? [] : all.slice(Math.ceil(all.length / 2)), right = all.slice(0, all.length - left.length);
  const step = 84, height = Math.max(230, right.length * step + 20);
  const centre = {x: all.length === 1 ? 330 : width / 2, y: height / 2};
  const wires = [], cards = [], pills = [];
  for (const [side, column] of [[1, right], [-1, left]]) {
    column.forEach((l, i) => {
      const dy = (i - (column.length - 1) / 2) * step;
      const reach = all.length === 1 ? 460 : 438 * Math.sqrt(1 - 0.3 * (2 * dy / height) ** 2);
      const at = {x: centre.x + side * reach, y: centre.y + dy};
      const from = centre.x + side * 118, to = at.x - side * 106, mid = (from + to) / 2;
      const root = centre.y + dy * 72 / height; // apart, and inside the card's edge
      const faded = matches(l) ? '' : ' faded';
      wires.push(svg('path', {class: `wire ${l.kind}${faded}`, d: `M${from} ${root}C${mid} ${root} ${mid} ${at.y} ${to} ${at.y}`}));
      pills.push(pill(l, mid, (root + at.y) / 2, faded));
      cards.push(card(l, at, faded));
    });
  }
  return frame(height, links, wires, pills, cards, centreCard(self, centre));
}

function pill(l, x, y, faded) {
  const text = kinds[l.kind].mark + ' ' + l.text, w = 24 + 7.5 * text.length;
  return svg('g', {class: `pill ${l.kind}${faded}`},
    svg('rect', {x: x - w / 2, y: y - 12, width: w, height: 24, rx: 12}),
    svg('text', {x, y: y + 4.5, 'text-anchor': 'middle'}, text));
}

function card(l, at, faded) {
  const [w, h] = [212, 64], x = at.x - w / 2, y = at.y - h / 2;
  return svg('g', {class: `card ${l.kind}${faded}`},
    svg('title', {}, describe(l)),
    svg('rect', {x, y, width: w, height: h, rx: 10}),
    svg('rect', {class: 'edge', x: x, y: y + 10, width: 4, height: h - 20, rx: 2}),
    svg('text', {class: 'main', x: x + 20, y: y + 27}, l.subnet),
    svg('text', {class: 'sub', x: x + 20, y: y + 47}, l.host + ' · ' + l.peer.Backend));
}

function centreCard(self, at) {
  const [w, h] = [236, 96], x = at.x - w / 2, y = at.y - h / 2;
  return svg('g', {class: 'card self'},
    svg('rect', {x, y, width: w, height: h, rx: 12}),
    svg('text', {class: 'tag', x: at.x, y: y + 24, 'text-anchor': 'middle'}, 'THIS HOST'),
    svg('text', {class: 'main', x: at.x, y: y + 51, 'text-anchor': 'middle'}, self.Subnet),
    svg('text', {class: 'sub', x: at.x, y: y + 75, 'text-anchor': 'middle'}, [self.PublicIP, self.Interface].filter(Boolean).join(' on ')));
}

// cells are hosts, the worst first, as large as there is room.
function cells(links, matches) {
  const [w, h, lines] = links.length <= 72 ? [140, 48, 2] : links.length <= 240 ? [70, 28, 1] : square(links.length);
  const columns = Math.floor(width / w), height = Math.ceil(links.length / columns) * h;
  const drawn = links.map((l, i) => {
    const x = i % columns * w, y = Math.floor(i / columns) * h;
    const g = svg('g', {class: `cell ${l.kind}${matches(l) ? '' : ' faded'}`},
      svg('title', {}, describe(l)),
      svg('rect', {x: x + 1, y: y + 1, width: w - 2, height: h - 2, rx: Math.min(6, w / 5)}));
    if (lines === 2) {
      g.append(svg('text', {class: 'main', x: x + 10, y: y + 20}, l.subnet), svg('text', {class: 'sub', x: x + 10, y: y + 37}, kinds[l.kind].mark + ' ' + l.text));
    } else if (lines === 1) {
      g.append(svg('text', {class: 'sub', x: x + w / 2, y: y + 18, 'text-anchor': 'middle'}, l.kind === 'fine' ? l.text : kinds[l.kind].mark));
    } else if (l.kind !== 'fine' && w >= 12) {
      g.append(svg('text', {class: 'dot', x: x + w / 2, y: y + h / 2 + 4, 'text-anchor': 'middle'}, kinds[l.kind].mark));
    }
    return g;
  });
  return frame(height, links, drawn);
}

function square(count) {
  const side = Math.max(7, Math.min(22, Math.floor(Math.sqrt(width * 380 / count))));
  return [side, side, 0];
}
