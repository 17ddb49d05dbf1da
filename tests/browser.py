"""A page in headless Chromium at a width, and what a script finds out about it there."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000"),
)
# A media query in a frame goes by the frame's width, and a window of a browser may have a least width.
_FRAME = """<!doctype html><body><iframe width="{width}" height="2000" style="border:0" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument, view = frame.contentWindow;
  const found = ((page, view) => {{ {script} }})(page, view);
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""


def ask(page, script, folder, *, width=1440, dark=False):
    """Return the JSON that `script`, the body of a function of `page` and `view`, makes of a page."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(_FRAME.format(width=width, page=html.escape(page), script=script), encoding="utf-8")
    scheme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    flags = scheme if dark else ["--blink-settings=preferredColorScheme=1"]
    command = [CHROMIUM, *_FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', shown, re.S)[1]))
