"""A headless Chromium that a test steers over the DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from contextlib import asynccontextmanager

import aiohttp

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


class Tab:
    """One page of the browser."""

    def __init__(self, socket):
        self._socket, self._last, self._waiting = socket, 0, {}
        self.requests, self.messages = [], []
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.messages.append(json.dumps(said["params"]))

    async def call(self, method, **params):
        self._last += 1
        self._waiting[self._last] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._last, "method": method, "params": params})
        said = await asyncio.wait_for(answer, 60)
        assert "error" not in said, (method, said)
        return said["result"]

    async def value(self, expression):
        """The value of a JavaScript expression."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression, seconds=90):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (found := await self.value(expression)):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}; {self.messages[-3:]}"
            await asyncio.sleep(0.2)
        return found

    async def upload(self, selector, *paths):
        """Choose files in an input element."""
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=node["nodeId"])

    async def resize(self, width, height):
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def screenshot(self, path):
        data = (await self.call("Page.captureScreenshot", captureBeyondViewport=True))["data"]
        path.write_bytes(base64.b64decode(data))


@asynccontextmanager
async def open_tab(profile, url):
    """Start the browser and open a page."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += ["--disable-background-networking", "--disable-sync", "--no-first-run", f"--user-data-dir={profile}"]
    process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = profile / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port_file.is_file() and "\n" in port_file.read_text()):
            assert time.monotonic() < end, "Chromium did not start"
            await asyncio.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=2**28) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Page.navigate", url=url)
                yield tab
    finally:
        process.terminate()
        process.wait(20)
