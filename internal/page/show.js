// Showing: asks status.json again and again, and makes anew what has changed.

const $ = id => document.getElementById(id);
let view = null, chosen = null, ahead = 0, everyHost = false;

// age is a time that says how long ago it is, and goes on doing so.
const age = when => when ? el('time', {datetime: when, title: new Date(when).toLocaleString()}, ago(when)) : '–';

function span(seconds) {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const [unit, size] = units.find(([, size]) => seconds >= size) || units[3];
  return Math.floor(seconds / size) + ' ' + unit;
}

const ago = when => {
  const seconds = Math.max(0, (Date.now() + ahead - Date.parse(when)) / 1000);
  return seconds < 1 ? 'now' : span(seconds) + ' ago';
};

// fill makes a place's content anew if what it is made from has changed.
const made = new Map();
function fill(place, from, make) {
  const key = JSON.stringify(from);
  if (made.get(place) === key) return;
  made.set(place, key);
  place.replaceChildren(...[make()].flat().filter(Boolean));
}

function table(head, rows, long) {
  return el('div', {class: long ? 'scroll long' : 'scroll', tabindex: 0, role: 'group', 'aria-label': head.join(', ')}, el('table', {},
    el('thead', {}, el('tr', {}, head.map(h => el('th', {scope: 'col'}, h)))),
    el('tbody', {}, rows.map(row => el('tr', {}, row.map(cell => el('td', {}, ...[cell].flat())))))));
}

const mono = text => el('code', {}, text);
const mark = (kind, text) => el('span', {class: 'mark ' + kind}, el('b', {'aria-hidden': 'true'}, kinds[kind].mark), ' ' + text);
const title = network => network.Name ? 'network ' + network.Name : 'the default network';
const count = (n, one) => n + ' ' + one + (n === 1 ? '' : 's');

function showHead(s) {
  $('where').textContent = s.PublicIP || 'flannel';
  $('build').textContent = 'docker-flannel ' + s.Build.Version;
  const bad = list(s.Problems).length;
  document.title = (bad ? '▲ ' : '') + (s.PublicIP || 'host') + ' · flannel';
  const text = bad ? '▲ ' + count(bad, 'problem') : '● ready';
  if ($('state').textContent !== text) $('state').textContent = text;
  $('state').className = 'badge ' + (bad ? 'bad' : 'good');
  fill($('findings'), [s.Problems, s.Notes], () => [['bad', s.Problems], ['note', s.Notes]].flatMap(([kind, all]) => list(all).map(f =>
    el('div', {class: 'finding ' + kind}, el('p', {}, el('b', {}, kind === 'bad' ? '▲ Problem: ' : 'ℹ Note: '), f.Text), f.Next && el('p', {class: 'next'}, '→ ', mono(f.Next))))));
}

const leaseWords = {
  held: ['fine', 'held'], unconfirmed: ['unknown', 'not confirmed'], lost: ['silent', 'lost'], taken: ['silent', 'taken by another host'],
  returning: ['unknown', 'being given back'], none: ['skipped', 'none'],
};
const leaseWord = lease => leaseWords[lease.State] || ['unknown', lease.State];

function tile(name, value, more, kind) {
  return el('div', {class: 'tile ' + (kind || '')}, el('dt', {}, name), el('dd', {class: 'value'}, value), el('dd', {class: 'more'}, more));
}

function addressTile(used) {
  const all = used.Used + used.Free, part = all ? used.Used / all : 0;
  const kind = part >= 0.9 ? 'lossy' : '';
  return tile('Addresses', [String(used.Used), el('small', {}, ' of ' + all)],
    [svg('svg', {class: 'meter', viewBox: '0 0 100 4', preserveAspectRatio: 'none', 'aria-hidden': 'true'},
      svg('rect', {width: 100, height: 4, class: 'rest'}), svg('rect', {width: 100 * part, height: 4, class: kind || 'used'})), used.Free + ' free'], kind);
}

function linkTiles(links) {
  const answering = links.filter(l => l.rtt), silent = links.filter(l => l.kind === 'silent').length;
  const slow = answering.reduce((a, b) => !a || b.rtt > a.rtt ? b : a, null);
  const others = tally(links).filter(t => t.kind !== 'fine').map(t => t.count + ' ' + kinds[t.kind].word).join(', ');
  const out = [tile('Hosts', String(links.length + 1), links.length ? others || 'every link is fine' : 'no other host yet', silent ? 'silent' : others ? 'lossy' : 'fine')];
  if (slow) out.push(tile('Slowest round-trip', millis(slow.rtt), 'to ' + slow.host));
  return out;
}

function showTiles(s, network, links) {
  const loop = s.Loop, failures = list(loop.Failures).length, repairs = list(loop.Repairs);
  const repaired = repairs.reduce((sum, r) => sum + r.Count, 0), last = repairs.map(r => r.Last).sort().pop();
  fill($('tiles'), [s.Store, loop.Failures, repairs, network && [network.Lease, network.Used, network.Name, network.Subnet], links], () => {
    const tiles = [];
    if (network) {
      const [kind, word] = leaseWord(network.Lease);
      tiles.push(tile('Lease ' + network.Subnet, word, network.Lease.Renewed ? ['renewed ', age(network.Lease.Renewed), ', lasts ' + span(network.Lease.TTL / 1e9)] : network.Lease.Error || 'not confirmed since the start', kind));
      tiles.push(...linkTiles(links));
      if (network.Used) tiles.push(addressTile(network.Used));
    }
    tiles.push(tile('Kernel', failures ? count(failures, 'fault') : 'as wanted', repaired ? [count(repaired, 'repair') + ', ', age(last)] : 'nothing repaired', failures ? 'silent' : 'fine'));
    const up = s.Store.Connected;
    tiles.push(tile('etcd', up ? 'answers' : s.Store.Asked ? 'away' : 'not asked yet', s.Store.Embedded ? 'in this plugin' : list(s.Store.Endpoints).map(e => e.replace(/^https?:\/\//, '')).join(', '), up ? 'fine' : 'lossy'));
    return tiles;
  });
}

function matcher() {
  const wanted = $('find').value.trim().toLowerCase();
  return l => !wanted || describe(l).toLowerCase().includes(wanted);
}

function showCluster(networks, network, links) {
  $('cluster').hidden = !network;
  if (!network) return;
  fill($('choice'), [networks.map(n => n.Name), chosen], () => networks.length < 2 ? [] : networks.map(n => {
    const b = el('button', {type: 'button', 'aria-pressed': n === network ? 'true' : 'false'}, n.Name || 'default');
    b.addEventListener('click', () => { chosen = n.Name; show(); $('choice').querySelector('[aria-pressed=true]').focus(); });
    return b;
  }));
  $('summary').textContent = `${title(network)}: ${network.CIDR}, ${network.Backend}, ${count(links.length + 1, 'host')}`;
  const matches = matcher(), sought = $('find').value;
  fill($('picture'), [network.Subnet, network.PublicIP, network.Interface, links, sought], () => picture(network, links, matches));
  fill($('legend'), tally(links), () => tally(links).map(t => mark(t.kind, t.count + ' ' + kinds[t.kind].word)));
  fill($('hosts'), [links, sought, everyHost], () => hostTable(links.filter(matches)));
}

const firstHosts = 25;
const heard = reach => reach.Heard ? ['answered ', age(reach.Heard)] : 'never answered';

function hostTable(links) {
  const some = everyHost ? links : links.slice(0, firstHosts);
  const rows = some.map(l => [
    mono(l.subnet), mono(l.host), l.peer.Backend, mark(l.kind, kinds[l.kind].word), l.rtt ? millis(l.rtt) : '–',
    l.peer.Reach ? Math.round(100 * l.loss) + ' %' : '–', l.why || (l.peer.Reach ? heard(l.peer.Reach) : ''),
  ]);
  if (!rows.length) return el('p', {class: 'none'}, 'no such host');
  const more = links.length > firstHosts && el('button', {type: 'button', class: 'more'}, everyHost ? 'show the worst ' + firstHosts : 'show all ' + links.length);
  if (more) more.addEventListener('click', () => { everyHost = !everyHost; show(); $('hosts').querySelector('button.more').focus(); });
  return [table(['Subnet', 'Host', 'Backend', 'Link', 'Round-trip', 'Loss', 'More'], rows, everyHost), more];
}

// section shows a table where there are rows.
function section(id, rows, head, cells) {
  $(id).hidden = !rows.length;
  if (rows.length) fill($(id).lastElementChild, rows, () => table(head, rows.map(cells), true));
}

function showTables(s, networks, events) {
  section('networks', networks, ['Network', 'CIDR', 'Backend', 'Lease', 'State', 'Renewed', 'MTU', 'Containers', 'Device'], n => [
    n.Name || 'default', mono(n.CIDR), n.Backend, mono(n.Subnet), mark(...leaseWord(n.Lease)), age(n.Lease.Renewed), String(n.MTU), String(list(n.Ports).length), n.Device ? mono(n.Device) : '–',
  ]);
  section('skipped', networks.flatMap(n => list(n.Skipped).map(k => ({...k, network: n.Name || 'default'}))), ['Network', 'Key', 'Why', 'Since'], k => [k.network, mono(k.Key), k.Reason, age(k.Since)]);
  section('repairs', list(s.Loop.Repairs), ['What', 'How often', 'Last'], r => [r.Kind, String(r.Count), age(r.Last)]);
  section('events', [...events].reverse(), ['When', 'Level', 'What'], e => [
    age(e.Time), el('span', {class: 'level ' + e.Level}, e.Level.toLowerCase()), [e.Text, e.Detail && el('span', {class: 'detail'}, ' ' + e.Detail)],
  ]);
}

function show() {
  const s = view.Status, networks = list(s.Networks);
  const network = networks.find(n => n.Name === chosen) || networks[0];
  chosen = network ? network.Name : null;
  const links = network ? list(network.Peers).map(link).sort(worse) : [];
  showHead(s);
  showTiles(s, network, links);
  showCluster(networks, network, links);
  showTables(s, networks, list(view.Events));
}

const often = 2000, seldom = 5000; // milliseconds, for few hosts and for many
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  try {
    const answer = await fetch('status.json', {signal: AbortSignal.timeout(5000)});
    if (!answer.ok) throw new Error('status ' + answer.status);
    view = await answer.json();
    ahead = Date.parse(view.Now) - Date.now();
    show();
    $('fresh').textContent = '● live';
    $('fresh').className = '';
  } catch (err) {
    $('fresh').textContent = 'not up to date: ' + err.message + (view ? '; this is of ' + ago(view.Now) : '');
    $('fresh').className = 'stale';
  }
  const many = view && list(view.Status.Networks).some(n => list(n.Peers).length > 200);
  if (!document.hidden) timer = setTimeout(refresh, many ? seldom : often);
}

document.addEventListener('visibilitychange', () => document.hidden || refresh());
$('find').addEventListener('input', () => view && show());
setInterval(() => { for (const t of document.querySelectorAll('time')) t.textContent = ago(t.dateTime); }, 1000);
refresh();
