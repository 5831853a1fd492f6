"""Times of torch calls in CUDA graphs, for the scripts of this folder."""
import time

import torch


def graph_us(calls, replays=9, warm_seconds=0.0):
    """Microseconds of one of `calls`, recorded one after the other: the least of `replays`, after at least one replay and
    `warm_seconds` of them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    start = time.monotonic()
    graph.replay()
    torch.cuda.synchronize()
    while time.monotonic() - start < warm_seconds:
        graph.replay()
        torch.cuda.synchronize()
    times = []
    for _ in range(replays):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / len(calls))
    return min(times)
