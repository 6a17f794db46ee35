"""HTTP over ``Engine``: one process, one event loop, one queue a model.

    server.py     the process: bind, run, stop on a signal
    app.py        the application: routers, errors
    routers/      one file a dialect: HTTP in, HTTP out
    schemas.py    what requests and replies look like
    bodies.py     request bodies in, arrays out as JSON
    registry.py   which model answers to which name
    scheduler.py  the queue of one model: admission, micro-batches, failures, drain
    errors.py     the one table from errors to statuses
    settings.py   what an operator can choose

Knows nothing about compiling: it is handed loaded engines.
"""
