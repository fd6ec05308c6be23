"""Pictures in: data sets and the order in which batches are drawn from them."""
