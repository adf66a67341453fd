// Arrow keys turn pages, the switch lays out the diff, a button unfolds and folds all of it, and numbers say how they
// were made. Without this script the pages show the unified diff, and everything folds and unfolds by itself.
'use strict';
const root = document.documentElement;
root.classList.add('js');

addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
  const cell = event.target.closest('td[data-why]');
  if (cell) {
    const cells = [...cell.closest('table').querySelectorAll('td[data-why]')];
    const next = cells[cells.indexOf(cell) + ({ArrowLeft: -1, ArrowRight: 1}[event.key] || 0)];
    if (next && next !== cell) { next.focus(); event.preventDefault(); }
  }
  const rel = {ArrowLeft: 'prev', ArrowRight: 'next'}[event.key];
  const link = rel && document.querySelector(`link[rel=${rel}]`);
  if (link && !cell && !scrolls(event.target) && !scrolls(getSelection().anchorNode)) location.href = link.href;
});

// Whether a node is in something that can be scrolled sideways: there the arrow keys scroll.
function scrolls(node) {
  for (; node && node !== document.body && node !== root; node = node.parentNode) {
    if (node.scrollWidth > node.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(node).overflowX)) return true;
  }
  return false;
}

// A number that says how it was made says it below its table when one points at it, taps it or reaches it with Tab.
for (const table of document.querySelectorAll('.matrix:has(td[title])')) {
  const line = document.createElement('p');
  line.className = 'why';
  line.setAttribute('aria-live', 'polite');
  line.textContent = root.lang === 'en' ? 'Point at a number to see how it was made.' : '指着一个数，看它是怎么算出来的。';
  table.parentNode.after(line);
  for (const [number, cell] of table.querySelectorAll('td[title]').entries()) {
    cell.dataset.why = cell.title;
    cell.removeAttribute('title');
    cell.tabIndex = number ? -1 : 0;
    const tell = () => { line.textContent = cell.dataset.why; };
    for (const kind of ['pointerenter', 'focus', 'click']) cell.addEventListener(kind, tell);
  }
}

function show(view) {
  if (view === 'split' && !document.querySelector('.twin')) {
    for (const line of document.querySelectorAll('.diff .same')) {
      const twin = line.lastElementChild.cloneNode(true);
      twin.classList.add('twin');
      twin.setAttribute('aria-hidden', 'true');
      line.firstElementChild.after(twin);
    }
  }
  root.dataset.view = view;
  for (const button of document.querySelectorAll('[data-set]')) {
    button.setAttribute('aria-pressed', button.dataset.set === view);
  }
}

for (const button of document.querySelectorAll('[data-set]')) {
  button.addEventListener('click', () => {
    show(button.dataset.set);
    try { localStorage.setItem('view', button.dataset.set); } catch { /* a browser may forbid it: then it is forgotten */ }
  });
}
try { if (localStorage.getItem('view') === 'split') show('split'); } catch { /* as above */ }

for (const button of document.querySelectorAll('.switch .all')) {
  const folds = [...document.querySelectorAll('.diff .fold')];
  const allOpen = () => folds.every(fold => fold.open);
  const label = () => [...button.children].forEach((text, number) => { text.hidden = allOpen() === !number; });
  button.addEventListener('click', () => {
    const open = !allOpen();
    for (const fold of folds) fold.open = open;
  });
  for (const fold of folds) fold.addEventListener('toggle', label);
}
