"""The chat server: an OpenAI-compatible API and a page, around the engine's scheduler.

What it is: HTTP, access, limits; `scheduler.py` and the engine below it do the work. What it is not: a place
where prompts are kept: logs hold paths, lengths and times. Run: `python -m scripts.chat_web`.

    access    token file, names that the server answers to, the ssh line
    guard     the ASGI middleware: Host, Origin, token, size of a body, headers of an answer
    protocol  uvicorn with time limits on slow clients
    pool      one scheduler a device, and the way of its events into the event loop
    schemas   what a request may hold        chat, text      request -> engine -> answer
    stream    server-sent events             routes, app     the endpoints
"""
