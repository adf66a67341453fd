// Arrow keys turn pages, the switch lays out the diff, a button unfolds what is unchanged. Without this script
// the pages show the unified diff, and everything folds and unfolds by itself.
'use strict';
const root = document.documentElement;
root.classList.add('js');

addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
  const rel = {ArrowLeft: 'prev', ArrowRight: 'next'}[event.key];
  const link = rel && document.querySelector(`link[rel=${rel}]`);
  if (link) location.href = link.href;
});

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
  button.addEventListener('click', () => {
    const open = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', open);
    for (const fold of document.querySelectorAll('.diff .fold')) fold.open = open;
  });
}
