"""What a user hands over beside a model: arrays, values of further inputs, embeddings of classes."""
