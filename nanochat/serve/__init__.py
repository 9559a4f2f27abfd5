"""The chat server: an OpenAI-compatible API and a page, before engines that are processes of their own.

What it is: HTTP, access, limits, in one process without torch; in each of the others a scheduler and its
engine do the work. What it is not: a place where prompts are kept: logs hold paths, lengths and times.
Run: `python -m scripts.chat_web`.

    access    token file, names that the server answers to, the ssh line
    guard     the ASGI middleware: Host, Origin, token, size of a body, headers of an answer
    protocol  uvicorn with time limits on slow clients
    pool      which engine gets a request, and where its events wait
    link, wire, worker   the server's end, what is said, the engine's process
    schemas   what a request may hold        chat, text      request -> engine -> answer
    stream    server-sent events             routes, app     the endpoints
"""
