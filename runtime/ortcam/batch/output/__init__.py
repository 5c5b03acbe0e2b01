"""The output of a batch: rows of a fixed schema, in Parquet parts that appear whole, and what reads them back."""
