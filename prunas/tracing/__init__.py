"""From a network to a `Survey`: what can vary, what is tied to what, what it costs.

`trace` gets a network's graph, `propagate` runs it with channel labels, `ledger` keeps the books and condenses
them into groups, `describe` adds gates, blocks, stages and costs and writes all down, `verify` builds random
points and compares, and `survey` tells the story.
"""
