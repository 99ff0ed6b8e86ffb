"""Ends processes at every step that they take on disk, has disks fail, and looks at what is left.

    points      the steps that a process takes on disk
    endings     how it ends, or fails, at one of them
    power       what a disk holds if the machine loses power then
    worlds      the chains and folders that are worked on
    scenes/     what is done to them, and what must hold afterwards: a module for each command
    cases       each scene with its chain, and the steps at which it is ended
    trials      all trials of one case in one way
    driver      a process that does trials as a specification in JSON says
    resources   real limits: of file sizes, open files, and a disk that is full
    program     all of it at every step, as a table: `python -m tests.crash --all`

A trial works on a fresh copy of a folder. A forked child does the work and dies, or fails, at its N-th step; N grows
until the work ends by itself. Steps are the calls that change files, each write to a file and each write of words;
writes are done in two halves, with a step between them.
"""
