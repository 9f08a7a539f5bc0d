// What scrolls can be reached by the keyboard, and the search has a name.
window.addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search")
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    part.setAttribute("tabindex", "0")
  }
})
