import sys; sys.path.insert(0,'/work/main/tests/contracts')
from test_methods import *
import time
def test_x(make_method, make_batch):
  for lr in (0.05,0.02):
    for name, head in HEADED:
        if head=='auto': continue
        for st in ({},unthresholded(name)):
            method, batch = make_method(name, model={"head": head}, **st), make_batch(images=8)
            opt=torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)
            def scores():
                method.eval()
                with torch.no_grad():
                    f={k: round(cross_entropy(s(batch.labelled.image), batch.labelled.label).item(),3) for k,s in method.predictors().items()}
                method.train(); return f
            t=time.time()
            a=scores(); c=[{k:round(v.item(),3) for k,v in train_step(method,opt,batch).items()} for _ in range(25)]
            print(lr,name,head,st,a,scores(),c[0],c[-1],round(time.time()-t,1))
