"""Why the model says so: heat maps, each with a score that says whether to believe it.

No torch at module level; `rollout` and `relevance` are imported where they are asked for.
"""

from vitreous.explanation.explain import METHODS, Explainer, Explanation, explain_image
from vitreous.explanation.faithfulness import Faithfulness

__all__ = ["METHODS", "Explainer", "Explanation", "Faithfulness", "explain_image"]
