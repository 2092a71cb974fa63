"""Blocks of a report -> Markdown, or one HTML page that needs nothing else: no script, no font, no request.

A block is (kind, content); report.py lists the kinds. Both forms are made from the same blocks, so they agree.
"""

import base64
import html
import re

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>%s</title><style>%s</style></head>
<body>
%s
</body></html>
"""

# Plots are drawn on white; in the dark their lightness is turned round and their hues are kept. On a narrow screen each
# line of a table of numbers becomes a card.
_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --back: #fff; --ink: #1a1a1a; --soft: #f3f3f3; --dim: #595959 }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --back: #161616; --ink: #e6e6e6; --soft: #222; --dim: #aaa }
  img { filter: invert(.91) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem;
  background: var(--back); color: var(--ink); overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p, ul, ol { max-width: 46rem }
.verdict { font-size: 1.15rem; font-weight: 600; border-left: .3rem solid #0072B2; padding-left: .8rem }
pre { background: var(--soft); padding: .6rem; border-radius: .4rem; white-space: pre-wrap }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; max-width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .7rem; text-align: left; vertical-align: top }
th { vertical-align: bottom }
.numbers { overflow-wrap: normal } .numbers :is(th, td):nth-child(n + 2) { text-align: right }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
figure { margin: 0 } img { width: 100%; height: auto; background: #fff; border-radius: .4rem }
@media (max-width: 44rem) {
  .numbers thead { display: none }
  .numbers, .numbers tbody, .numbers tr, .numbers td { display: block; width: 100% }
  .numbers tr { border: 1px solid var(--line); border-radius: .4rem; margin-bottom: .8rem; padding: .2rem 0 }
  .numbers td { border: 0; padding: .15rem .7rem; display: flex; justify-content: space-between; gap: 1rem }
  .numbers td::before { content: attr(data-label); color: var(--dim); text-align: left }
  .numbers td:first-child { font-weight: 600 } .numbers td:first-child::before { content: none } }
@media print {
  :root { --line: #ccc; --back: #fff; --ink: #000; --soft: #f3f3f3; --dim: #444 }
  body { max-width: none; padding: 0; font-size: 11pt } img { filter: none }
  figure, tr, .verdict { break-inside: avoid } h2 { break-after: avoid } .plots { grid-template-columns: 1fr 1fr } }
"""


def markdown(blocks: list[tuple]) -> str:
    """The blocks as Markdown; the plots are files beside it."""
    return "\n\n".join(_md(*block) for block in blocks) + "\n"


def page(title: str, blocks: list[tuple]) -> str:
    """The blocks as an HTML page that holds its plots."""
    return _PAGE % (html.escape(title), _STYLE, "\n".join(_html(*block) for block in blocks))


def _md_text(text: str) -> str:
    """`text` escaped for Markdown; brackets that make no link stay."""
    return re.sub(r"([\\`*<|]|\](?=[(\[:]))", r"\\\1", text.replace("&", "&amp;"))


def md_table(cells: list[list[str]], numbers: bool = False, left: int = 2) -> str:
    """Lines of cells, header first, as a Markdown table; with `numbers` all columns but `left` to the right."""
    rule = ["---" if i < left or not numbers else "---:" for i in range(len(cells[0]))]
    lines = [rule if line is None else map(_md_text, line) for line in (cells[0], None, *cells[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(kind: str, content) -> str:
    if kind in ("numbers", "facts"):
        return md_table(content, kind == "numbers", left=1)
    if kind == "plots":
        return "\n\n".join(f"[![{plot['title']}]({name}.png)]({name}.svg)" for name, plot in content.items())
    if kind in ("list", "steps"):
        return "\n".join(f"{'1.' if kind == 'steps' else '-'} {_md_text(item)}" for item in content)
    if kind == "code":  # indented, not fenced: no text can end it
        return f"    {content}"
    if kind == "verdict":
        return f"**{_md_text(content)}**"
    return {"title": "# ", "heading": "## ", "text": ""}[kind] + _md_text(content)


def _html(kind: str, content) -> str:
    if kind in ("numbers", "facts"):
        head, *lines = content
        cells = ["".join(_cell(*pair) for pair in zip(head, line, strict=True)) for line in lines]
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join(f"<tr>{line}</tr>\n" for line in cells)
        return f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    if kind == "plots":
        return f'<div class="plots">{"".join(map(_figure, content.values()))}</div>'
    if kind in ("list", "steps"):
        tag = "ol" if kind == "steps" else "ul"
        return f"<{tag}>{''.join(f'<li>{html.escape(item)}</li>' for item in content)}</{tag}>"
    if kind == "verdict":
        return f'<p class="verdict">{html.escape(content)}</p>'
    tag = {"title": "h1", "heading": "h2", "code": "pre", "text": "p"}[kind]
    return f"<{tag}>{html.escape(content)}</{tag}>"


def _cell(name: str, text: str) -> str:
    return f'<td data-label="{html.escape(name)}">{html.escape(text)}</td>'


def _figure(plot: dict) -> str:
    data = base64.b64encode(plot["svg"]).decode()
    return f'<figure><img alt="{html.escape(plot["title"])}" src="data:image/svg+xml;base64,{data}"></figure>'
