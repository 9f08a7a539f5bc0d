"""From a network to a `Survey`: what can vary, what is tied to what, what it costs.

`labels` runs the traced network with channel labels, `ledger` keeps the books and condenses them into groups,
`record` adds gates, blocks, stages and costs and writes all down, and `survey` tells the story: trace, label,
condense, record, then build random points and compare.
"""
