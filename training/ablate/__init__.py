"""The paper's ablation tables on any data set and model, beside the paper's own figures."""
