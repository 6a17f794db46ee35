"""Ray over the same artifacts: bulk jobs by many workers, rows of Ray Data, replicas of Ray Serve.

    library.py     importing Ray, and being connected to a cluster
    workers.py     how many workers, and what each of them gets
    worker.py      one worker: a loaded model that computes and stores parts
    calls.py       what workers were asked and have not answered
    crew.py        the workers of a job: how many there are, and which are lost
    dispatch.py    the parts of a job: who computes them, and in which order they count
    jobs.py        a bulk job, from the model's name to its result
    datasets.py    columns of Ray Data
    deployment.py  replicas of Ray Serve

What a part is and how it is computed, stored and committed is ``poolc/runtime/bulk``; what a server
answers is ``poolc/serve``. Nothing here imports Ray before it is used.
"""
