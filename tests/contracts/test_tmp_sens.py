import torch, json, os
from des4.models import prototypes as P
def test_s(make_method, make_batch, monkeypatch):
    out=[]
    method = make_method("des4")
    opt = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.001, momentum=0.9, weight_decay=1e-4)
    rec={}
    orig=P.multi_entropy_sample
    def spy(entropy, labels, quota, **k):
        m=orig(entropy,labels,quota,**k); rec['mask']=m.nonzero()[:,0].tolist(); rec['entropy']=entropy.tolist(); rec['quota']=quota.tolist(); rec['labels']=labels.tolist(); return m
    monkeypatch.setattr(P,'multi_entropy_sample',spy)
    import des4.methods.des4 as D
    op=D.pseudo_labels
    def spy2(l,v):
        r=op(l,v); rec['pl']=r.label.flatten().tolist(); return r
    monkeypatch.setattr(D,'pseudo_labels',spy2)
    for m in range(10):
        terms = method(make_batch(m)); sum(terms.values()).backward(); opt.step(); opt.zero_grad(); method.after_step()
        out.append({**rec,'terms':[v.item() for v in terms.values()]})
    json.dump(out,open(os.environ['SENS'],'w'))
